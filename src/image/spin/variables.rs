//! Variables of an application, and the templates they are filled into.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{SpinError, malformed, table, unsupported};

/// What a value from outside is called: this and the variable's name in capitals, as in Spin.
pub const VARIABLE: &str = "SPIN_VARIABLE_";

/// Values by name; absent where there is none.
pub(super) struct Variables(BTreeMap<String, Option<String>>);

impl Variables {
    /// Those that are declared: with what `given` has for them, else their default.
    pub(super) fn read(declared: Option<&Value>, given: &dyn Fn(&str) -> Option<String>) -> Self {
        let declared = declared.and_then(Value::as_object).into_iter().flatten();
        let value = |(name, variable): (&String, &Value)| {
            let default = || variable.get("default").and_then(Value::as_str).map(str::to_owned);
            (name.clone(), given(&outside(name)).or_else(default))
        };
        Self(declared.map(value).collect())
    }

    /// A template, filled in: `{{ name }}` stands for a variable's value.
    pub(super) fn fill(&self, template: &str) -> Result<String, SpinError> {
        let (mut text, mut rest) = (String::new(), template);
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) =
                after.split_once("}}").ok_or_else(|| malformed(format!("`{template}` is not closed")))?;
            let name = name.trim();
            let value = self.0.get(name).ok_or_else(|| malformed(format!("there is no variable `{name}`")))?;
            let value = value.as_deref().ok_or_else(|| {
                let outside = outside(name);
                unsupported(format!(
                    "needs a value for its variable `{name}`: set `{outside}` in the service's `environment`"
                ))
            })?;
            text += before;
            text += value;
            rest = after;
        }
        Ok(text + rest)
    }

    /// A table of templates, filled in.
    pub(super) fn fill_table(&self, templates: Option<&Value>) -> Result<BTreeMap<String, String>, SpinError> {
        table(templates).map(|(name, template)| Ok((name.clone(), self.fill(template)?))).collect()
    }
}

fn outside(name: &str) -> String {
    format!("{VARIABLE}{}", name.to_ascii_uppercase())
}
