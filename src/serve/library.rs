//! The playbooks of a folder, checked, and checked again when they change. One that is broken by a change keeps the
//! last text that was good; what is wrong with the new one is kept beside it. Starts nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use runback_core::diagnostic::{Code, Diagnostic, Severity};
use runback_core::event::PlaybookText;
use runback_core::plan::Plan;
use runback_core::playbook::yaml::{self, Node};
use runback_core::schedule::Schedule;
use runback_core::span::{Source, SourceId, Sources, Span};
use runback_core::step::Catalog;

use crate::load;
use crate::words;

/// Deeper folders, and more files than this, are not looked at.
const DEEPEST: usize = 8;
const MOST: usize = 5_000;

/// A playbook that was good when it was read.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) plan: Arc<Plan>,
    pub(crate) texts: Vec<PlaybookText>,
    pub(crate) base: PathBuf,
    pub(crate) schedules: Vec<Arc<Schedule>>,
    /// Milliseconds since the epoch when this text was first seen.
    pub(crate) since: u64,
}

/// What the check says of the file as it is now.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) sources: Sources,
}

impl Finding {
    pub(crate) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity() == Severity::Error).count()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its path in the folder, without the extension.
    pub(crate) id: String,
    pub(crate) file: PathBuf,
    /// Another one of the same id: which of them is meant, nobody knows.
    twin: Option<PathBuf>,
    /// None: no text of it was ever good.
    pub(crate) good: Option<Arc<Good>>,
    pub(crate) now: Arc<Finding>,
    /// The file is there.
    pub(crate) present: bool,
    marks: Vec<(PathBuf, Mark)>,
}

impl Entry {
    /// The file is not what would run.
    pub(crate) fn is_broken(&self) -> bool {
        self.now.errors() > 0
    }

    /// It is of these files, and they have not changed since.
    fn is_as_read(&self, files: &[&PathBuf]) -> bool {
        let own = std::iter::once(&self.file).chain(&self.twin);
        self.present && own.eq(files.iter().copied()) && self.marks.iter().all(|(path, seen)| mark(path) == *seen)
    }

    /// What the first error says, if there is one.
    pub(crate) fn first_error(&self) -> String {
        let first = self.now.diagnostics.iter().find(|d| d.severity() == Severity::Error);
        first.map(|d| format!("{}: {}", d.code.name(), d.message)).unwrap_or_default()
    }

    fn broken(&self) -> Change {
        Change::Broken(self.id.clone(), self.now.errors(), self.first_error())
    }
}

/// Tells whether a file was written since.
type Mark = Option<(SystemTime, u64)>;

fn mark(path: &Path) -> Mark {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// What changed since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    New(String),
    Changed(String),
    /// So many errors, and what the first one says.
    Broken(String, usize, String),
    Gone(String),
    /// A file of another kind, which is left out.
    Other(PathBuf),
}

pub(crate) struct Library {
    root: Option<PathBuf>,
    catalog: Arc<Catalog>,
    entries: RwLock<BTreeMap<String, Entry>>,
    /// YAML of other kinds, as it was when it was read.
    others: Mutex<BTreeMap<PathBuf, Mark>>,
}

impl Library {
    /// Without a folder it stays empty.
    pub(crate) fn new(root: Option<PathBuf>, catalog: Arc<Catalog>) -> Self {
        Self { root, catalog, entries: RwLock::default(), others: Mutex::default() }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Entry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// In the order of their ids.
    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Looks at the folder and reads what changed. Blocks for as long as that takes.
    pub(crate) fn look(&self) -> Vec<Change> {
        let Some(root) = &self.root else { return Vec::new() };
        let mut files = Vec::new();
        find(root, root, 0, &mut files);
        let mut changes = Vec::new();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.retain(|path, _| files.iter().any(|(_, file)| file == path));
        for (id, mut of_id) in by_id(&files) {
            of_id.retain(|file| {
                let is_other = others.get(*file).is_some_and(|seen| mark(file) == *seen);
                if !is_other {
                    others.remove(*file);
                }
                !is_other
            });
            let known = self.get(id);
            if of_id.is_empty() || known.as_ref().is_some_and(|k| k.is_as_read(&of_id)) {
                continue;
            }
            let alone = of_id.len() == 1;
            let mut found = Vec::new();
            for file in of_id {
                // Of one that has the id for itself the name may have changed.
                let before = known.as_ref().filter(|k| alone || k.file == *file);
                let entry = self.read(id, file, before);
                if entry.good.is_none() && !says_it_is_a_playbook(&entry.now.sources) {
                    others.insert(file.clone(), entry.marks.first().and_then(|(_, seen)| *seen));
                    changes.push(Change::Other(file.clone()));
                } else {
                    found.push(entry);
                }
            }
            let mut found = found.into_iter();
            let Some(mut entry) = found.next() else { continue };
            if let Some(twin) = found.next() {
                entry = twins(root, entry, twin, known.as_ref().and_then(|k| k.good.clone()));
            }
            changes.push(match &known {
                _ if entry.is_broken() => entry.broken(),
                None => Change::New(id.clone()),
                Some(_) => Change::Changed(id.clone()),
            });
            self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), entry);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (id, entry) in entries.iter_mut() {
            let there = |(there, file): &(String, PathBuf)| there == id && !others.contains_key(file);
            if entry.present && !files.iter().any(there) {
                entry.present = false;
                changes.push(Change::Gone(id.clone()));
            }
        }
        entries.retain(|_, entry| entry.present);
        changes
    }

    fn read(&self, id: &str, file: &Path, known: Option<&Entry>) -> Entry {
        // Before it is read: a write in the middle is seen at the next look.
        let own = (file.to_owned(), mark(file));
        let loaded = load::load(&file.to_string_lossy(), &self.catalog);
        let mut marks = vec![own];
        for text in loaded.texts.iter().skip(1) {
            let path = loaded.base.join(&text.name);
            let seen = mark(&path);
            marks.push((path, seen));
        }
        let load::Loaded { texts, base, checked } = loaded;
        let good = match (checked.plan, known.and_then(|k| k.good.clone())) {
            (Some(plan), Some(good)) if good.plan.digest() == plan.digest() && good.texts == texts => Some(good),
            (Some(plan), _) => {
                let schedules = schedules(id, &texts);
                Some(Arc::new(Good { plan, texts, base, schedules, since: words::now_ms() }))
            }
            (None, good) => good,
        };
        let now = Arc::new(Finding { diagnostics: checked.diagnostics, sources: checked.sources });
        Entry { id: id.to_owned(), file: file.to_owned(), twin: None, good, now, present: true, marks }
    }
}

/// The files of each id.
fn by_id(files: &[(String, PathBuf)]) -> BTreeMap<&String, Vec<&PathBuf>> {
    let mut all: BTreeMap<&String, Vec<&PathBuf>> = BTreeMap::new();
    for (id, file) in files {
        all.entry(id).or_default().push(file);
    }
    all
}

/// Two files that would be one playbook: neither is taken, and what was `good` before stays in use.
fn twins(root: &Path, one: Entry, other: Entry, good: Option<Arc<Good>>) -> Entry {
    let name = |file: &Path| file.strip_prefix(root).unwrap_or(file).display().to_string();
    let names = [name(&one.file), name(&other.file)];
    let mut sources = Sources::default();
    let mut spans = Vec::new();
    for entry in [&one, &other] {
        let text = entry.now.sources.iter().next().map_or_else(Arc::default, |(_, source)| Arc::clone(&source.text));
        spans.push(Span::new(sources.add(Source::new(entry.file.display().to_string(), text)), 0, 0));
    }
    let message = format!("{} and {} would both be the playbook `{}`: neither is used", names[0], names[1], one.id);
    let diagnostic = Diagnostic::new(Code::SamePlaybookTwice, message, spans[0], "this one")
        .label(spans[1], "or this one?")
        .help(format!("remove {} or {}, or give it another name", names[0], names[1]));
    let now = Arc::new(Finding { diagnostics: vec![diagnostic], sources });
    let marks = [one.marks, other.marks].concat();
    Entry { twin: Some(other.file), good, now, marks, ..one }
}

/// A file that fails the check is a broken playbook only if its top says that it is one; what cannot be read at all may
/// be one. Other YAML lies in the same folders: manifests, values, what a playbook copies somewhere.
fn says_it_is_a_playbook(sources: &Sources) -> bool {
    const KEYS: [&str; 2] = ["runback", "steps"];
    let Some((_, source)) = sources.iter().next() else { return true };
    let (node, _) = yaml::parse_lossy(SourceId(0), &source.text);
    match node.as_ref().map(Node::as_map) {
        Some(Some(pairs)) => pairs.iter().any(|(key, _)| key.as_str().is_some_and(|k| KEYS.contains(&k))),
        Some(None) => false,
        None => {
            let top =
                |line: &str| KEYS.iter().any(|key| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
            source.text.lines().any(top)
        }
    }
}

/// `schedule:` of a playbook that was checked: what the check let through can be read.
fn schedules(id: &str, texts: &[PlaybookText]) -> Vec<Arc<Schedule>> {
    let Some(first) = texts.first() else { return Vec::new() };
    let (playbook, _) = runback_core::playbook::read(SourceId(0), &first.text);
    let (all, bad) = Schedule::all(id, &playbook.map(|p| p.schedule).unwrap_or_default());
    for why in bad {
        super::log::error("a schedule cannot be used", serde_json::json!({ "playbook": id, "error": why }));
    }
    all.into_iter().map(Arc::new).collect()
}

/// Playbooks under a folder, in the order of their names; what begins with a dot is left out, and tests are no playbooks.
fn find(root: &Path, folder: &Path, depth: usize, files: &mut Vec<(String, PathBuf)>) {
    let Ok(listed) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || files.len() >= MOST {
            continue;
        }
        if path.is_dir() {
            if depth < DEEPEST {
                find(root, &path, depth + 1, files);
            }
            continue;
        }
        let Some(stem) = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")) else { continue };
        if Path::new(stem).extension().is_some_and(|e| e == "test") {
            continue;
        }
        let inside = path.parent().and_then(|p| p.strip_prefix(root).ok()).unwrap_or(Path::new(""));
        files.push((inside.join(stem).to_string_lossy().into_owned(), path));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn write(path: &Path, text: &str, tick: u64) {
        std::fs::write(path, text).unwrap();
        // Two writes of the same length within one tick of the file system's clock would look alike.
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + tick);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn only_what_says_that_it_is_a_playbook_is_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str, tick| write(&dir.path().join(name), text, tick);
        put("prometheus.yml", "scrape_configs:\n  - job_name: node\n", 1);
        put("manifests.yaml", "kind: Pod\n---\nkind: Service\n", 1);
        put("values.yaml", "{{ template: of another tool\n", 1);
        put("list.yaml", "- one\n", 1);
        put("empty.yaml", "", 1);
        put("misspelt.yaml", "runback: 1\nname: a\nstep:\n  - run: echo\n", 1);
        put("no-version.yml", "name: b\nsteps:\n  - run: echo\n", 1);
        put("no-yaml.yaml", "runback: 1\nname: [\nsteps: }\n", 1);
        let library = Library::new(Some(dir.path().to_owned()), Arc::new(runback_steps::catalog()));
        let changes = library.look();
        let ids: Vec<String> = library.all().into_iter().filter(Entry::is_broken).map(|e| e.id).collect();
        assert_eq!(ids, ["misspelt", "no-version", "no-yaml"]);
        assert_eq!(library.all().len(), 3);
        assert_eq!(changes.iter().filter(|c| matches!(c, Change::Other(_))).count(), 5, "{changes:?}");
        assert_eq!(library.look(), [], "it is said once");

        put("prometheus.yml", "runback: 1\nname: c\nsteps:\n  - run: echo\n", 2);
        assert_eq!(library.look(), [Change::New("prometheus".to_owned())]);
        put("prometheus.yml", "scrape_configs: []\n", 3);
        assert!(matches!(library.look()[..], [Change::Broken(..)]), "one that was good stays one");
        put("misspelt.yaml", "kind: Pod\n", 2);
        let changes = library.look();
        assert!(changes.contains(&Change::Gone("misspelt".to_owned())), "{changes:?}");
        assert!(library.get("misspelt").is_none());
    }

    /// Neither shadows the other: nobody can say which of them is meant.
    #[test]
    fn two_files_of_one_id_are_no_playbook_and_what_was_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str, tick| write(&dir.path().join(name), text, tick);
        let text = |say: &str| format!("runback: 1\nname: a\nsteps:\n  - run: echo {say}\n");
        put("a.yaml", &text("one"), 1);
        put("a.yml", &text("two"), 1);
        put("b.yml", &text("b"), 1);
        put("b.yaml", "values: [1]\n", 1);
        let library = || Library::new(Some(dir.path().to_owned()), Arc::new(runback_steps::catalog()));
        let first = library();
        let changes = first.look();
        let both = "RB0114: a.yaml and a.yml would both be the playbook `a`: neither is used";
        assert!(changes.contains(&Change::Broken("a".to_owned(), 1, both.to_owned())), "{changes:?}");
        let a = first.get("a").unwrap();
        assert!(a.is_broken() && a.good.is_none());
        let said = format!("{:#}", a.now.diagnostics[0].to_json(&a.now.sources));
        insta::assert_snapshot!("two_files_of_one_id", said.replace(&*dir.path().to_string_lossy(), "FOLDER"));
        assert_eq!(first.get("b").unwrap().file, dir.path().join("b.yml"), "the other file is no playbook");
        assert_eq!(first.look(), [], "it is said once");

        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(first.look(), [Change::Changed("a".to_owned())]);
        let used = |library: &Library| library.get("a").unwrap().good.unwrap().texts[0].text.clone();
        assert_eq!(used(&first), text("two"));
        put("a.yaml", &text("three"), 2);
        assert!(matches!(first.look()[..], [Change::Broken(..)]));
        assert_eq!(used(&first), text("two"), "what was in use stays in use");
        put("a.yaml", &text("four"), 3);
        assert!(matches!(first.look()[..], [Change::Broken(..)]));
        assert_eq!(used(&first), text("two"));
        std::fs::remove_file(dir.path().join("a.yml")).unwrap();
        assert_eq!(first.look(), [Change::Changed("a".to_owned())]);
        assert_eq!(used(&first), text("four"));
    }

    #[test]
    fn a_broken_change_keeps_what_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ops/nightly.yaml");
        std::fs::create_dir(dir.path().join("ops")).unwrap();
        let good = "runback: 1\nname: nightly\nschedule:\n  - cron: '@daily'\nsteps:\n  - run: echo one\n";
        write(&file, good, 1);
        std::fs::write(dir.path().join("ops/nightly.test.yaml"), "no playbook").unwrap();
        let library = Library::new(Some(dir.path().to_owned()), Arc::new(runback_steps::catalog()));
        assert_eq!(library.look(), [Change::New("ops/nightly".to_owned())]);
        assert_eq!(library.look(), [], "nothing changed");
        let first = library.get("ops/nightly").unwrap();
        assert_eq!(first.good.as_ref().unwrap().schedules.len(), 1);

        write(&file, &good.replace("run:", "runs:"), 2);
        let changes = library.look();
        let [Change::Broken(id, 1, why)] = &changes[..] else { panic!("{changes:?}") };
        assert!(id == "ops/nightly" && why.starts_with("RB02"), "{changes:?}");
        let broken = library.get("ops/nightly").unwrap();
        assert!(broken.is_broken());
        assert!(Arc::ptr_eq(broken.good.as_ref().unwrap(), first.good.as_ref().unwrap()));

        write(&file, &good.replace("one", "two"), 3);
        assert_eq!(library.look(), [Change::Changed("ops/nightly".to_owned())]);
        let mended = library.get("ops/nightly").unwrap();
        assert!(!mended.is_broken() && mended.good.unwrap().plan.digest() != first.good.unwrap().plan.digest());

        std::fs::remove_file(&file).unwrap();
        assert_eq!(library.look(), [Change::Gone("ops/nightly".to_owned())]);
        assert!(library.get("ops/nightly").is_none());
    }
}
