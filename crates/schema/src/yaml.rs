//! YAML documents as JSON values that remember where in the file each value stood.
//!
//! YAML 1.2 with its core schema: `yes` and `on` are strings. Duplicate keys, unknown tags and
//! keys that aren't scalars are errors. Sizes, depths and aliases are bounded, so that no file
//! can grow without limit while it is read.

use std::collections::BTreeMap;
use std::iter::Peekable;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

use crate::{Location, Problem};

/// Bytes of one YAML file.
pub const YAML_BYTES_MAX: usize = 16 << 20;
/// Values of one file, those that aliases repeat included.
pub const YAML_NODES_MAX: usize = 500_000;
/// Collections within collections.
pub const YAML_DEPTH_MAX: usize = 64;

/// One document of a YAML file.
#[derive(Debug, Clone, PartialEq)]
pub struct YamlDocument {
    pub value: Value,
    /// The file's name, as it was given.
    pub file: String,
    /// Where the document starts.
    start: (usize, usize),
    /// JSON pointers of all values, with line and column.
    places: BTreeMap<String, (usize, usize)>,
    /// JSON pointers of members of maps, with line and column of their key.
    keys: BTreeMap<String, (usize, usize)>,
}

impl YamlDocument {
    /// All documents of a file; empty ones are left out.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Self>, Problem> {
        if text.len() > YAML_BYTES_MAX {
            return Err(Problem::user("file-too-large", "A YAML file is too large")
                .detail(format!(
                    "It has {} bytes; {YAML_BYTES_MAX} are allowed",
                    text.len()
                ))
                .hint("Split it into several files")
                .at(location(file, (1, 1))));
        }
        Reader {
            file,
            events: Parser::new_from_str(text).peekable(),
            anchors: BTreeMap::new(),
            nodes: 0,
        }
        .documents()
    }

    /// Where the value at `json_pointer` stands, or its nearest ancestor that the file has.
    pub fn locate(&self, json_pointer: &str) -> Location {
        self.nearest(json_pointer, &self.places)
    }

    /// The same document, in which other pointers stand for some of its own: each of `places` is a pointer and the one
    /// whose place it has. For what is read as something that it isn't written as.
    pub fn with_places(&self, places: &[(&str, &str)]) -> Self {
        let own = |(pointer, written): &(&str, &str)| {
            let at = self.locate(written);
            ((*pointer).to_owned(), (at.line, at.column))
        };
        let mut document = self.clone();
        document.places.extend(places.iter().map(own));
        document
    }

    /// Where the key of the member at `json_pointer` stands; for what isn't a member of a map, as
    /// [`YamlDocument::locate`].
    pub fn locate_key(&self, json_pointer: &str) -> Location {
        match self.keys.get(json_pointer) {
            Some(place) => location(&self.file, *place),
            None => self.locate(json_pointer),
        }
    }

    fn nearest(&self, json_pointer: &str, places: &BTreeMap<String, (usize, usize)>) -> Location {
        let mut pointer = json_pointer;
        loop {
            if let Some(place) = places.get(pointer) {
                return location(&self.file, *place);
            }
            match pointer.rfind('/') {
                Some(slash) => pointer = &pointer[..slash],
                None => return location(&self.file, self.start),
            }
        }
    }
}

/// A JSON pointer's segment for a key: `~` and `/` are escaped.
pub fn pointer_segment(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn location(file: &str, (line, column): (usize, usize)) -> Location {
    Location {
        file: file.to_owned(),
        line,
        column,
    }
}

/// A value with the places of everything in it, by pointer relative to it.
#[derive(Clone, Default)]
struct Node {
    value: Value,
    places: Vec<(String, (usize, usize))>,
    keys: Vec<(String, (usize, usize))>,
}

struct Reader<'a> {
    file: &'a str,
    events: Peekable<Parser<'a, StrInput<'a>>>,
    /// Values that anchors name, for their aliases.
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

fn place(span: &Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

impl<'a> Reader<'a> {
    fn problem(&self, span: &Span, title: impl Into<String>) -> Problem {
        Problem::user("bad-yaml", title).at(location(self.file, place(span)))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        loop {
            return match self.events.next() {
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => continue,
                Some(Ok(event)) => Ok(event),
                Some(Err(error)) => {
                    let mark = error.marker();
                    let at = (mark.line().max(1), mark.col() + 1);
                    Err(Problem::user("bad-yaml", "The file is no valid YAML")
                        .detail(error.info())
                        .hint("Check the indentation, quotes and brackets at and before this place")
                        .at(location(self.file, at)))
                }
                None => Err(Problem::user("bad-yaml", "The file ends too early")
                    .at(location(self.file, (1, 1)))),
            };
        }
    }

    fn documents(mut self) -> Result<Vec<YamlDocument>, Problem> {
        let mut documents = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::DocumentStart(..) => {
                    self.anchors.clear();
                    let (event, span) = self.next()?;
                    let node = self.node(event, &span, 0)?;
                    if !node.value.is_null() {
                        documents.push(YamlDocument {
                            value: node.value,
                            file: self.file.to_owned(),
                            start: place(&span),
                            places: node.places.into_iter().collect(),
                            keys: node.keys.into_iter().collect(),
                        });
                    }
                }
                Event::StreamStart | Event::DocumentEnd => {}
                _ => return Err(self.problem(&span, "The file is no valid YAML")),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Problem> {
        if depth > YAML_DEPTH_MAX {
            let title = format!("Values are nested more than {YAML_DEPTH_MAX} deep");
            return Err(self.problem(span, title));
        }
        self.count(1, span)?;
        let anchor = event.anchor_id();
        let node = match event {
            Event::Scalar(text, style, _, tag) => {
                let tag = tag.map(|t| t.to_string());
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                leaf(value, span)
            }
            Event::SequenceStart(..) => self.sequence(span, depth)?,
            Event::MappingStart(..) => self.mapping(span, depth)?,
            Event::Alias(id) => self.alias(id, span)?,
            _ => return Err(self.problem(span, "A value is missing here")),
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > YAML_NODES_MAX {
            let title = format!("The file has more than {YAML_NODES_MAX} values");
            return Err(self
                .problem(span, title)
                .hint("Split it, or use fewer aliases"));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<Node, Problem> {
        let Some(mut node) = self.anchors.get(&id).cloned() else {
            return Err(self.problem(span, "An alias names no finished value"));
        };
        self.count(node.places.len(), span)?;
        // What is wrong with an alias's value is to be mended where the value stands, so inner
        // places stay; the value itself is where the alias is.
        if let Some(first) = node.places.first_mut() {
            first.1 = place(span);
        }
        Ok(node)
    }

    fn sequence(&mut self, span: &Span, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        let mut node = leaf(Value::Null, span);
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                node.value = Value::Array(items);
                return Ok(node);
            }
            let item = self.node(event, &at, depth + 1)?;
            adopt(&mut node, &items.len().to_string(), &item);
            items.push(item.value);
        }
    }

    fn mapping(&mut self, span: &Span, depth: usize) -> Result<Node, Problem> {
        let mut members = Map::new();
        let mut node = leaf(Value::Null, span);
        loop {
            let (event, at) = self.next()?;
            let key = match event {
                Event::MappingEnd => {
                    node.value = Value::Object(members);
                    return Ok(node);
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.problem(&at, "A key must be plain text")),
            };
            if key == "<<" {
                return Err(self
                    .problem(&at, "Merge keys (`<<`) are not part of YAML 1.2")
                    .hint("Repeat the members, or use an alias for the whole value"));
            }
            if members.contains_key(&key) {
                return Err(self
                    .problem(&at, format!("The key `{key}` occurs twice"))
                    .hint("Remove or rename one of them")
                    .field(key));
            }
            let (event, value_at) = self.next()?;
            let value = self.node(event, &value_at, depth + 1)?;
            let segment = pointer_segment(&key);
            node.keys.push((format!("/{segment}"), place(&at)));
            adopt(&mut node, &segment, &value);
            members.insert(key, value.value);
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&str>,
        span: &Span,
    ) -> Result<Value, Problem> {
        let core = |name: &str| format!("tag:yaml.org,2002:{name}");
        match tag {
            None if style == ScalarStyle::Plain => Ok(plain(text)),
            None => Ok(Value::String(text.to_owned())),
            Some(tag) if tag == "!" || tag == core("str") || tag == "!!str" => {
                Ok(Value::String(text.to_owned()))
            }
            Some(tag) => Err(self
                .problem(span, format!("The tag `{tag}` is not understood"))
                .hint("Leave the tag out")),
        }
    }
}

fn leaf(value: Value, span: &Span) -> Node {
    Node {
        value,
        places: vec![(String::new(), place(span))],
        keys: Vec::new(),
    }
}

/// Takes over the places of a child that stands at `segment`.
fn adopt(node: &mut Node, segment: &str, child: &Node) {
    let prefixed = |(pointer, at): &(String, (usize, usize))| (format!("/{segment}{pointer}"), *at);
    node.places.extend(child.places.iter().map(prefixed));
    node.keys.extend(child.keys.iter().map(prefixed));
}

/// The core schema's reading of a plain scalar.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |prefix, radix| {
        let digits: &str = text.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok().map(Number::from)
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(number);
    }
    let first = digits.bytes().next()?;
    if !first.is_ascii_digit() && first != b'.' {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        if let Ok(value) = text.parse::<i64>() {
            return Some(value.into());
        }
        if let Ok(value) = text.parse::<u64>() {
            return Some(value.into());
        }
    }
    // Rust reads more than the core schema allows (`inf`, `1_0` it doesn't): keep to its letters.
    let allowed = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    if !digits.bytes().all(allowed) || !digits.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests;
