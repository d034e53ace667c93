//! The text itself: a header, one block of `key=value` lines for each tree, and what follows them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use headwater_schema::Problem;

use crate::load::corrupt;

/// Lines of `key=value`; a line without a sign is a key without a value.
#[derive(Debug, Default)]
pub(super) struct Block<'a> {
    lines: BTreeMap<&'a str, &'a str>,
}

pub(super) struct ModelText<'a> {
    pub(super) header: Block<'a>,
    pub(super) trees: Vec<Block<'a>>,
    /// `pandas_categorical`, as JSON.
    pub(super) categories: Option<&'a str>,
}

impl<'a> ModelText<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let text =
            std::str::from_utf8(bytes).map_err(|e| corrupt(format!("It isn't UTF-8 text: {e}")))?;
        let mut header = Block::default();
        let mut trees: Vec<Block<'a>> = Vec::new();
        let mut lines = text.lines();
        let mut ended = false;
        for line in lines.by_ref() {
            if line.starts_with("Tree=") {
                trees.push(Block::default());
            } else if line == "end of trees" {
                ended = true;
                break;
            } else {
                trees.last_mut().unwrap_or(&mut header).add(line);
            }
        }
        if !ended {
            return Err(corrupt("It has no line `end of trees`"));
        }
        let categories = lines.find_map(|l| l.strip_prefix("pandas_categorical:"));
        Ok(Self {
            header,
            trees,
            categories,
        })
    }
}

impl<'a> Block<'a> {
    fn add(&mut self, line: &'a str) {
        if !line.is_empty() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            self.lines.insert(key, value);
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.lines.get(key).copied()
    }

    pub(super) fn words(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.get(key).unwrap_or_default().split_ascii_whitespace()
    }

    /// The one number of a line that has to be there.
    pub(super) fn number(&self, key: &str) -> Result<usize, Problem> {
        match self.get(key) {
            Some(text) => number(key, text),
            None => Err(corrupt(format!("It has no line `{key}`"))),
        }
    }

    /// As many numbers as there have to be.
    pub(super) fn numbers<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, Problem>
    where
        T::Err: Display,
    {
        let found: Vec<T> = self.all(key)?;
        if found.len() == count {
            return Ok(found);
        }
        Err(corrupt(format!(
            "`{key}` has {} numbers where {count} belong",
            found.len()
        )))
    }

    pub(super) fn all<T: FromStr>(&self, key: &str) -> Result<Vec<T>, Problem>
    where
        T::Err: Display,
    {
        self.words(key).map(|word| number(key, word)).collect()
    }
}

pub(super) fn number<T: FromStr>(key: &str, text: &str) -> Result<T, Problem>
where
    T::Err: Display,
{
    text.trim().parse().map_err(|e| {
        let shown: String = text.chars().take(40).collect();
        corrupt(format!("`{key}` has `{shown}`: {e}"))
    })
}
