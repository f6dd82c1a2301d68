//! The functions that a bot can call.

use serde::Deserialize;
use serde_json::{Value, json};

pub(super) const HANG_UP: &str = "hang_up";
pub(super) const TRANSFER: &str = "transfer";

/// What the service takes as a name.
const MAX_NAME_LEN: usize = 64;

/// The functions that are declared to the service. The bot can call no others.
#[derive(Clone, Debug, Default)]
pub(super) struct ToolSet {
    declared: Vec<Value>,
    pub(super) hang_up: bool,
    /// Where to, in words.
    pub(super) transfer: Option<String>,
}

/// What a function that was called is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    HangUp,
    Transfer,
    /// Of the operator.
    Other,
}

impl ToolSet {
    pub(super) fn declare(&mut self, declarations: &str) -> Result<(), String> {
        let mut declared: Vec<Value> = serde_json::from_str(declarations).map_err(|error| {
            format!("the declarations of tools have to be a JSON array of objects: {error}")
        })?;
        for (index, declaration) in declared.iter_mut().enumerate() {
            check(declaration).map_err(|error| format!("tool {}: {error}", index + 1))?;
        }
        for (index, declaration) in declared.iter().enumerate() {
            let name = &declaration["name"];
            if declared[..index].iter().any(|it| it["name"] == *name) {
                return Err(format!("two tools have the name {name}; give each its own"));
            }
        }
        self.declared = declared;
        Ok(())
    }

    /// As the service is told.
    pub(super) fn declarations(&self) -> Vec<Value> {
        let mut all = self.declared.clone();
        if self.hang_up {
            all.push(json!({
                "type": "function",
                "name": HANG_UP,
                "description": "Ends the phone call. Say goodbye before you call it: nothing can be said afterwards.",
                "parameters": {"type": "object", "properties": {}},
            }));
        }
        if let Some(destinations) = &self.transfer {
            let description = format!(
                "Transfers the caller to somebody else. Tell the caller before you call it: nothing can be said afterwards. \
                 Destinations: {destinations}"
            );
            all.push(json!({
                "type": "function",
                "name": TRANSFER,
                "description": description,
                "parameters": {
                    "type": "object",
                    "properties": {"to": {"type": "string", "description": "The destination."}},
                    "required": ["to"],
                },
            }));
        }
        all
    }

    /// `None` if there is no such function. A bot may call what it was not offered.
    pub(super) fn find(&self, name: &str) -> Option<Tool> {
        match name {
            HANG_UP => self.hang_up.then_some(Tool::HangUp),
            TRANSFER => self.transfer.as_ref().map(|_| Tool::Transfer),
            _ => {
                let is_declared = self.declared.iter().any(|it| it["name"] == name);
                is_declared.then_some(Tool::Other)
            }
        }
    }
}

fn check(declaration: &mut Value) -> Result<(), String> {
    let Value::Object(fields) = declaration else {
        return Err("it has to be an object with a name, a description and parameters".into());
    };
    let kind = fields.entry("type").or_insert_with(|| json!("function"));
    if kind != "function" {
        return Err(format!("its type has to be \"function\", not {kind}"));
    }
    const KNOWN: [&str; 4] = ["type", "name", "description", "parameters"];
    if let Some(unknown) = fields.keys().find(|it| !KNOWN.contains(&it.as_str())) {
        return Err(format!(
            "it may have a name, a description and parameters, but not {unknown:?}"
        ));
    }
    let name = fields
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.chars().all(is_name) {
        return Err(format!(
            "its name has to be 1 to {MAX_NAME_LEN} letters, digits, _ and -, not {name:?}"
        ));
    }
    if [HANG_UP, TRANSFER].contains(&name) {
        return Err(format!(
            "{name} is built in; allow it instead, or choose another name"
        ));
    }
    if fields.get("description").is_some_and(|it| !it.is_string()) {
        return Err("its description has to be text".into());
    }
    if fields.get("parameters").is_some_and(|it| !it.is_object()) {
        return Err("its parameters have to be a JSON Schema of an object".into());
    }
    Ok(())
}

/// The arguments of `transfer`, as they go to the tool: nothing but the destination.
pub(super) fn transfer_arguments(arguments: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Transfer {
        to: String,
    }
    match serde_json::from_str(arguments) {
        Ok(Transfer { to }) if !to.trim().is_empty() => Ok(json!({"to": to.trim()}).to_string()),
        Ok(_) => Err("the argument `to` is empty".into()),
        Err(_) => Err("it takes one argument, `to`, which is a string".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn declarations_are_checked_when_they_are_set() {
        let cases = [
            ("", "JSON array"),
            ("{}", "JSON array"),
            ("[1]", "tool 1: it has to be an object"),
            (r#"[{"type": "mcp", "name": "a"}]"#, "\"function\""),
            (r#"[{"name": "a"}, {"name": ""}]"#, "tool 2: its name"),
            (r#"[{"name": "a b"}]"#, "its name"),
            (
                r#"[{"name": "a"}, {"name": "a"}]"#,
                "two tools have the name \"a\"",
            ),
            (r#"[{"name": "hang_up"}]"#, "built in"),
            (r#"[{"name": "transfer"}]"#, "built in"),
            (r#"[{"name": "a", "parameters": []}]"#, "JSON Schema"),
            (r#"[{"name": "a", "description": 1}]"#, "text"),
            (r#"[{"name": "a", "strict": true}]"#, "strict"),
        ];
        for (declarations, expected) in cases {
            let error = ToolSet::default().declare(declarations).unwrap_err();
            assert!(error.contains(expected), "{declarations}: {error}");
        }
    }

    #[test]
    fn only_what_is_declared_or_allowed_can_be_called() {
        let mut tools = ToolSet::default();
        assert_eq!(tools.declarations(), [] as [Value; 0]);
        assert_eq!(tools.find(HANG_UP), None);
        assert_eq!(tools.find(TRANSFER), None);
        tools
            .declare(r#"[{"name": "weather", "parameters": {"type": "object"}}]"#)
            .unwrap();
        assert_eq!(tools.find("weather"), Some(Tool::Other));
        assert_eq!(tools.find("other"), None);
        tools.hang_up = true;
        tools.transfer = Some("100 is sales".into());
        assert_eq!(tools.find(HANG_UP), Some(Tool::HangUp));
        assert_eq!(tools.find(TRANSFER), Some(Tool::Transfer));
        let declared = tools.declarations();
        let names: Vec<_> = declared
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["weather", HANG_UP, TRANSFER]);
        assert!(declared.iter().all(|it| it["type"] == "function"));
    }

    #[test]
    fn a_transfer_needs_a_destination() {
        assert_eq!(
            transfer_arguments(r#"{"to": " 100 ", "x": 1}"#).unwrap(),
            r#"{"to":"100"}"#
        );
        for wrong in ["", "{}", "[]", r#"{"to": 100}"#, r#"{"to": " "}"#] {
            assert!(transfer_arguments(wrong).is_err(), "{wrong}");
        }
    }
}
