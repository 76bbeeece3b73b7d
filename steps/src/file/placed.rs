//! Inputs that all step types have which put a whole file somewhere: whose it is, and who must accept it first. Knows not
//! where the content comes from.

/// Declares the inputs of such a step type: its own, `path` among them, and those that all have.
macro_rules! placed_inputs {
    ($($(#[$own_meta:meta])* $own:ident: $own_type:ty,)*) => {
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Inputs {
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// Permission bits as octal digits in quotes, such as "0644".
            #[serde(default)]
            pub(crate) mode: Option<crate::file::Mode>,
            /// Name or number of its owner.
            #[serde(default)]
            pub(crate) owner: Option<String>,
            /// Name or number of its group.
            #[serde(default)]
            pub(crate) group: Option<String>,
            /// Make the directories above it that are not there.
            #[serde(default)]
            pub(crate) create_dirs: bool,
            /// A command, as a list of words, that must accept the new file before it takes the old one's place; `{path}` is the
            /// new file.
            #[serde(default)]
            pub(crate) validate: Option<Vec<String>>,
        }

        impl Inputs {
            /// `mode` is that of a file that was not there, where the inputs say none.
            fn placed(
                &self,
                cx: &runback_core::step::Cx<'_>,
                source: crate::file::put::Source,
                mode: u32,
            ) -> crate::file::put::Wanted<'_> {
                let (owner, group) = (self.owner.as_deref(), self.group.as_deref());
                crate::file::put::Wanted {
                    ownership: crate::file::Ownership { mode: self.mode, owner, group },
                    new_mode: Some(mode),
                    create_dirs: self.create_dirs,
                    validate: self.validate.as_deref().unwrap_or_default(),
                    ..crate::file::put::Wanted::new(cx.path(&self.path), source)
                }
            }

            fn placed_problems(&self) -> Vec<runback_core::step::InputProblem> {
                let path = crate::file::paths::file_problems("path", &self.path);
                path.into_iter().chain(crate::file::put::validate_problems(self.validate.as_ref())).collect()
            }
        }
    };
}

pub(crate) use placed_inputs;
