//! The table that the machine mounts from when it starts: /etc/fstab, as text. Knows not what is mounted.

use runback_core::step::StepError;

use super::Inputs;

/// Blanks in a field, as fstab and mountinfo write them.
fn escape(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011")
}

pub(super) fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The table with one line for the path. A line for the path as it was `written` is one for it.
pub(super) fn with_line(table: &str, inputs: &Inputs, path: &str, written: &str) -> Result<String, StepError> {
    let fields = [&inputs.source, path, &inputs.fstype, &inputs.options].map(escape);
    let same = |line: &str| {
        let is: Vec<&str> = line.split_whitespace().take(4).collect();
        is.len() == 4 && is[0] == fields[0] && is[2] == fields[2] && is[3] == fields[3]
    };
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    let names = [bare(path), bare(written)];
    let of_path: Vec<&str> = table
        .lines()
        .filter(|l| {
            let at = l.split_whitespace().nth(1).map(|p| bare(&unescape(p)));
            !l.trim_start().starts_with('#') && at.is_some_and(|p| names.contains(&p))
        })
        .collect();
    let wanted = format!("{} 0 0", fields.join(" "));
    match of_path[..] {
        [one] if same(one) => Ok(table.to_owned()),
        [] => {
            let end = if table.is_empty() || table.ends_with('\n') { "" } else { "\n" };
            Ok(format!("{table}{end}{wanted}\n"))
        }
        [one] => Ok(table
            .split_inclusive('\n')
            .map(|l| if l.trim_end_matches('\n') == one { l.replacen(one, &wanted, 1) } else { l.to_owned() })
            .collect()),
        _ => Err(StepError::conflict(format!("{}: {} lines are for {path}", inputs.fstab, of_path.len()))
            .help("leave one of them")),
    }
}
