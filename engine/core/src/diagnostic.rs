//! What a check says: a stable code, a message in terms of the playbook, labelled spans, and help that
//! can be typed. Rendering is the command line's.

use crate::span::{Sources, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// One finding. The first label is the place that the message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    pub message: String,
    pub help: Option<String>,
    pub labels: Vec<Label>,
}

impl Diagnostic {
    pub fn new(code: Code, message: impl Into<String>, span: Span, label: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, labels: vec![Label { span, text: label.into() }] }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn maybe_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = help.map(Into::into);
        self
    }

    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    pub fn severity(&self) -> Severity {
        self.code.info().severity
    }

    /// The JSON form of `--output json`: lines and columns from 1, columns in characters.
    pub fn to_json(&self, sources: &Sources) -> serde_json::Value {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|l| {
                let source = sources.get(l.span.source);
                let at = source.position(l.span.start);
                let mut label = serde_json::json!({
                    "line": at.line, "column": at.column, "offset": l.span.start,
                    "length": l.span.len(), "text": l.text,
                });
                if self.labels[0].span.source != l.span.source {
                    label["file"] = source.name.as_ref().into();
                }
                label
            })
            .collect();
        let file = self.labels.first().map(|l| sources.get(l.span.source).name.to_string());
        serde_json::json!({
            "code": self.code.name(), "severity": self.severity(), "message": self.message,
            "help": self.help, "file": file, "labels": labels,
        })
    }
}

/// What is fixed about a code: its severity and its one-line summary (its page is docs/diagnostics/NAME.md).
#[derive(Debug, Clone, Copy)]
pub struct CodeInfo {
    pub name: &'static str,
    pub severity: Severity,
    pub summary: &'static str,
}

macro_rules! codes {
    ($($name:ident $number:literal $severity:ident $summary:literal)*) => {
        /// A stable diagnostic code. A number is never used again for something else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $summary] $name),* }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$name),*];

            pub fn info(self) -> CodeInfo {
                match self {
                    $(Code::$name => CodeInfo { name: $number, severity: Severity::$severity, summary: $summary }),*
                }
            }

            pub fn name(self) -> &'static str {
                self.info().name
            }
        }
    };
}

// 01 YAML · 02 keys and shapes · 03 templates, expressions, references · 04 the graph · 05 step types and
// their inputs · 06 warnings · 07 values given at the start of a run.
codes! {
    YamlSyntax "RB0101" Error "The text is not YAML."
    YamlTab "RB0102" Error "A tab stands where YAML wants spaces."
    YamlDuplicateKey "RB0103" Error "A key stands twice in one map."
    YamlSecondDocument "RB0104" Error "The file holds more than one YAML document."
    YamlTooLarge "RB0105" Error "Aliases or nesting make the document too large."
    YamlNotUtf8 "RB0106" Error "The file is not UTF-8."
    YamlEmpty "RB0107" Error "The file holds no playbook."
    YamlTag "RB0108" Error "An unknown YAML tag."
    YamlNumber "RB0109" Error "A number does not fit in 64 bits."
    YamlMergeKey "RB0110" Error "`<<` merge keys are not part of YAML 1.2."
    YamlAlias "RB0111" Error "An alias to an unknown anchor, or to itself."
    YamlUnquotedTemplate "RB0112" Error "A template that is not quoted reads as a YAML map."
    FileUnreadable "RB0113" Error "The file cannot be read."
    SamePlaybookTwice "RB0114" Error "Two files of a folder would be the same playbook."

    UnknownKey "RB0201" Error "A key that is not part of the language."
    MissingKey "RB0202" Error "A key that must be there is missing."
    WrongType "RB0203" Error "A value has the wrong type."
    WrongValue "RB0204" Error "A value is not one of those that are allowed."
    BadDuration "RB0205" Error "A duration that cannot be read."
    BadCron "RB0206" Error "A cron expression that cannot be read, or never fires."
    BadTimezone "RB0207" Error "An unknown time zone."
    BadRegex "RB0208" Error "A regular expression that cannot be read."
    BadId "RB0209" Error "An id that is not lower-case letters, digits and dashes."
    DuplicateId "RB0210" Error "Two steps of one scope have the same id."
    ConflictingKeys "RB0211" Error "Keys that exclude each other stand together."
    DefaultViolatesType "RB0212" Error "A default is not of its input's own type."
    LanguageVersion "RB0213" Error "A language version that this runback does not know."
    NotYet "RB0214" Error "A feature that this version of runback does not have yet."
    KeyNeedsOther "RB0215" Error "A key has no meaning without another one."

    TemplateSyntax "RB0301" Error "A template that cannot be read."
    TemplateTooLarge "RB0302" Error "A template over the limits."
    ExpressionSyntax "RB0303" Error "An expression that cannot be read."
    UnknownName "RB0304" Error "A name that is not in scope."
    UnknownInput "RB0305" Error "A reference to an input that is not declared."
    UnknownStepReference "RB0306" Error "A reference to a step that is not there."
    UnknownOutput "RB0307" Error "A reference to an output that the step does not have."
    UnknownSecret "RB0308" Error "A reference to a secret that is not declared."
    NotReferable "RB0309" Error "A reference to something that has no value at that point."
    SecretNotAllowed "RB0310" Error "A secret where its value would be stored or shown."
    UnknownFunction "RB0311" Error "An unknown template helper or expression function."
    TypesDoNotFit "RB0312" Error "A template or an expression over values whose types do not fit."

    NeedsUnknown "RB0401" Error "`needs` names a step that is not there."
    NeedsSelf "RB0402" Error "A step needs itself."
    Cycle "RB0403" Error "Steps need each other in a circle."
    NeedsTwice "RB0404" Warning "`needs` names a step twice."

    UnknownStepType "RB0501" Error "An unknown step type."
    MissingStepInput "RB0502" Error "A step input that must be there is missing."
    UnknownStepInput "RB0503" Error "A step input that the step type does not have."
    WrongStepInput "RB0504" Error "A step input has the wrong type or value."
    UnknownTarget "RB0505" Error "A target that is not declared."
    SubPlaybook "RB0506" Error "A sub-playbook that cannot be read, or includes itself."

    UnusedInput "RB0601" Warning "An input that nothing uses."
    UnquotedInScript "RB0602" Warning "A value goes into a shell script without quoting."
    SecretOnCommandLine "RB0603" Warning "A secret goes onto a command line, where others can see it."
    PointOfNoReturn "RB0604" Warning "A step that cannot be taken back stands before steps that can fail."
    NorwayProblem "RB0605" Warning "A plain scalar that other YAML readers take for something else."
    UnusedSecret "RB0606" Warning "A secret that nothing uses."
    UnusedTarget "RB0607" Warning "A target that nothing uses."
    NoEffect "RB0608" Warning "A key that changes nothing here."
    TemplateNotRead "RB0609" Warning "A template where none is read."

    InputMissing "RB0701" Error "A required input has no value."
    InputUnknown "RB0702" Error "A value for an input that the playbook does not have."
    InputInvalid "RB0703" Error "A value that its input's declaration does not allow."
    SecretUnavailable "RB0704" Error "A secret that could not be read."
}
