//! What variables, functions and files hold at a place in a text.

use std::collections::HashMap;
use std::rc::Rc;

use super::Node;

/// A variable that got more values than this is open.
const MAX_CHOICES: usize = 8;
/// What is written to files is kept up to this, over all of them.
const MAX_KEPT: usize = 1 << 16;

/// What is known where the walk stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    variables: HashMap<String, Value>,
    /// `$1` and so on; none where nobody knows.
    pub(crate) positional: Option<Vec<String>>,
    functions: HashMap<String, Rc<Vec<Node>>>,
    aliases: HashMap<String, String>,
    files: HashMap<String, String>,
    kept: usize,
}

/// What a variable may hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Value {
    pub(crate) texts: Vec<String>,
    /// Whether it may hold something else as well.
    pub(crate) open: bool,
}

impl Values {
    /// Returns what `bash -c TEXT` begins with.
    pub(crate) fn of_a_command() -> Self {
        Self { positional: Some(Vec::new()), ..Self::default() }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Value> {
        self.variables.get(name)
    }

    /// From here on it holds one of these.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.variables.insert(name.to_owned(), value);
    }

    /// Perhaps it holds one of these from here on.
    pub(crate) fn may_set(&mut self, name: &str, value: Value) {
        let before = self.variables.entry(name.to_owned()).or_insert(Value { texts: Vec::new(), open: true });
        before.open |= value.open;
        for text in value.texts {
            if before.texts.len() >= MAX_CHOICES {
                before.open = true;
            } else if !before.texts.contains(&text) {
                before.texts.push(text);
            }
        }
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.remove(name);
        self.functions.remove(name);
    }

    pub(crate) fn unset_variable(&mut self, name: &str) {
        self.variables.remove(name);
    }

    pub(crate) fn function(&self, name: &str) -> Option<Rc<Vec<Node>>> {
        self.functions.get(name).map(Rc::clone)
    }

    pub(crate) fn define(&mut self, name: &str, body: &Rc<Vec<Node>>) {
        self.functions.insert(name.to_owned(), Rc::clone(body));
    }

    pub(crate) fn alias(&self, name: &str) -> Option<&str> {
        self.aliases.get(name).map(String::as_str)
    }

    pub(crate) fn name_alias(&mut self, name: &str, text: &str) {
        self.aliases.insert(name.to_owned(), text.to_owned());
    }

    /// Returns what the text itself wrote to a file.
    pub(crate) fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether the text wrote files of which it is known what they hold.
    pub(crate) fn wrote(&self) -> bool {
        self.files.values().any(|text| !text.is_empty())
    }

    pub(crate) fn write(&mut self, path: &str, text: &str, appends: bool) {
        self.kept += text.len();
        if self.kept > MAX_KEPT {
            return;
        }
        let file = self.files.entry(path.to_owned()).or_default();
        if !appends {
            file.clear();
        }
        file.push_str(text);
    }
}

impl Value {
    pub(crate) fn of(text: String) -> Self {
        Self { texts: vec![text], open: false }
    }

    pub(crate) const fn unknown() -> Self {
        Self { texts: Vec::new(), open: true }
    }
}
