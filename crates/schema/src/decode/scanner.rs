//! A strict scanner of JSON text: one pass, no tree, integers never read through a float.

use std::borrow::Cow;

/// Text that is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Byte of the text.
    pub at: usize,
    pub what: &'static str,
}

/// The one fault that is a limit of ours.
pub const TOO_DEEP: &str = "values are nested too deep";

/// What the next value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    List,
    Text,
    Number,
    True,
    False,
    Null,
}

impl Kind {
    pub fn words(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::List => "a list",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::True | Self::False => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A number as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberText<'a> {
    pub text: &'a str,
    /// Whether it has neither a point nor an exponent.
    pub is_whole: bool,
}

pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    nesting_max: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str, nesting_max: usize) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            nesting_max,
        }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes back, or on, to a place it was at before.
    pub fn seek(&mut self, position: usize) {
        self.at = position;
    }

    /// The text from a place up to here.
    pub fn since(&self, position: usize) -> &'a str {
        self.text.get(position..self.at).unwrap_or_default()
    }

    pub fn syntax(&self, what: &'static str) -> Syntax {
        Syntax { at: self.at, what }
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no blank, without taking it.
    pub fn peek(&mut self) -> Option<u8> {
        self.blank();
        self.bytes.get(self.at).copied()
    }

    pub fn kind(&mut self) -> Result<Kind, Syntax> {
        Ok(match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't') => Kind::True,
            Some(b'f') => Kind::False,
            Some(b'n') => Kind::Null,
            Some(_) => return Err(self.syntax("a value is expected")),
            None => return Err(self.syntax("the text ends where a value is expected")),
        })
    }

    /// Takes a byte if it is the next.
    pub fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// After an opening bracket or a member: whether another member follows. Takes the comma or the
    /// closing bracket.
    pub fn more(&mut self, close: u8, first: bool) -> Result<bool, Syntax> {
        if self.accept(close) {
            return Ok(false);
        }
        if !first && !self.accept(b',') {
            return Err(self.syntax("a comma or a closing bracket is expected"));
        }
        Ok(true)
    }

    /// A member's name, with the colon behind it.
    pub fn key(&mut self) -> Result<Cow<'a, str>, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a quoted name is expected"));
        }
        let key = self.string()?;
        if !self.accept(b':') {
            return Err(self.syntax("a colon is expected"));
        }
        Ok(key)
    }

    /// Takes a member's name and its colon if they are exactly these; `name` needs no escapes.
    pub fn accept_key(&mut self, name: &str) -> bool {
        if self.peek() != Some(b'"') {
            return false;
        }
        let start = self.at;
        if self.bytes[start + 1..].starts_with(name.as_bytes()) {
            let end = start + 1 + name.len();
            if self.bytes.get(end) == Some(&b'"') {
                self.at = end + 1;
                if self.accept(b':') {
                    return true;
                }
                self.at = start;
            }
        }
        false
    }

    pub fn literal(&mut self, kind: Kind) -> Result<(), Syntax> {
        let word: &[u8] = match kind {
            Kind::True => b"true",
            Kind::False => b"false",
            _ => b"null",
        };
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.syntax("a value is expected"));
        }
        self.at += word.len();
        Ok(())
    }

    /// A string; the next byte is its quote.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Syntax> {
        self.at += 1;
        let start = self.at;
        self.plain_run();
        if self.bytes.get(self.at) == Some(&b'"') {
            let text = self.since(start);
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = self.since(start).to_owned();
        loop {
            let run = self.at;
            self.plain_run();
            text.push_str(self.since(run));
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    text.push(c);
                }
                Some(_) => return Err(self.syntax("a control character stands in a string")),
                None => return Err(self.syntax("a string is not closed")),
            }
        }
    }

    /// Goes on to the next quote, backslash or control character.
    fn plain_run(&mut self) {
        while let Some(byte) = self.bytes.get(self.at) {
            if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
                return;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.hex()?;
                if (0xD800..0xDC00).contains(&unit) && self.bytes[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xDC00..0xE000).contains(&low) {
                        let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                        return char::from_u32(code)
                            .ok_or_else(|| self.syntax("an escape names no character"));
                    }
                }
                char::from_u32(unit).ok_or_else(|| self.syntax("an escape names no character"))?
            }
            _ => return Err(self.syntax("an escape is not known")),
        })
    }

    fn hex(&mut self) -> Result<u32, Syntax> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let digits = digits.ok_or_else(|| self.syntax("an escape is cut off"))?;
        let mut unit = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16);
            unit =
                unit * 16 + digit.ok_or_else(|| self.syntax("an escape needs four hex digits"))?;
        }
        self.at += 4;
        Ok(unit)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.at - start
    }

    /// A number; the next byte starts it.
    pub fn number(&mut self) -> Result<NumberText<'a>, Syntax> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        let first = self.bytes.get(self.at).copied();
        match self.digits() {
            0 => return Err(self.syntax("a number lacks digits")),
            2.. if first == Some(b'0') => return Err(self.syntax("a number starts with 0")),
            _ => {}
        }
        let mut is_whole = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            is_whole = false;
            if self.digits() == 0 {
                return Err(self.syntax("a number lacks digits"));
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            is_whole = false;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.syntax("a number lacks digits"));
            }
        }
        Ok(NumberText {
            text: self.since(start),
            is_whole,
        })
    }

    /// Goes past one value of any kind.
    pub fn skip(&mut self) -> Result<(), Syntax> {
        self.skip_within(self.nesting_max)
    }

    /// Goes past one value, however deep; what is open is kept beside the call stack.
    pub fn skip_any(&mut self) -> Result<(), Syntax> {
        self.skip_within(usize::MAX)
    }

    fn skip_within(&mut self, nesting_max: usize) -> Result<(), Syntax> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            let mut first = false;
            match self.kind()? {
                kind @ (Kind::Object | Kind::List) => {
                    if open.len() >= nesting_max {
                        return Err(self.syntax(TOO_DEEP));
                    }
                    self.at += 1;
                    open.push(if kind == Kind::Object { b'}' } else { b']' });
                    first = true;
                }
                Kind::Text => self.skip_string()?,
                Kind::Number => self.number().map(|_| ())?,
                literal => self.literal(literal)?,
            }
            loop {
                let Some(close) = open.last().copied() else {
                    return Ok(());
                };
                if !self.more(close, first)? {
                    open.pop();
                    first = false;
                    continue;
                }
                if close == b'}' {
                    self.skip_key()?;
                }
                break;
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a quoted name is expected"));
        }
        self.skip_string()?;
        match self.accept(b':') {
            true => Ok(()),
            false => Err(self.syntax("a colon is expected")),
        }
    }

    /// Goes past a string without reading its escapes: one that names no character spoils the row
    /// it stands in, not the body.
    fn skip_string(&mut self) -> Result<(), Syntax> {
        self.at += 1;
        loop {
            self.plain_run();
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.bytes.get(self.at) {
                        Some(b'u') => {
                            self.at += 1;
                            self.hex()?;
                        }
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                            self.at += 1
                        }
                        _ => return Err(self.syntax("an escape is not known")),
                    }
                }
                Some(_) => return Err(self.syntax("a control character stands in a string")),
                None => return Err(self.syntax("a string is not closed")),
            }
        }
    }
}
