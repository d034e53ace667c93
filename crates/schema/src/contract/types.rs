//! Types as text: ODCS's `physicalType`, and our own names for types.

use std::sync::Arc;

use super::TYPE_DEPTH_MAX;
use crate::{DataType, Field};

/// Reads `decimal(12,2)`, `map<string,double>`, `array<int>`, `struct<a:int,b:string>` and the names
/// that databases give to plain types. None for what isn't known.
pub fn parse_type(text: &str) -> Option<DataType> {
    let mut parser = TypeParser { rest: text.trim() };
    let data_type = parser.data_type(0)?;
    parser.rest.is_empty().then_some(data_type)
}

/// Whether it is a decimal type without its digits.
pub fn is_bare_decimal(text: &str) -> bool {
    matches!(
        text.trim().to_lowercase().as_str(),
        "decimal" | "numeric" | "number" | "bignumeric"
    )
}

struct TypeParser<'a> {
    rest: &'a str,
}

impl<'a> TypeParser<'a> {
    fn data_type(&mut self, depth: usize) -> Option<DataType> {
        if depth > TYPE_DEPTH_MAX {
            return None;
        }
        let name = self
            .name(|c| c.is_ascii_alphanumeric() || c == '_')?
            .to_lowercase();
        match name.as_str() {
            "map" => {
                self.symbol('<')?;
                let key = self.data_type(depth + 1)?;
                self.symbol(',')?;
                let value = self.data_type(depth + 1)?;
                self.symbol('>')?;
                (key == DataType::String).then(|| DataType::Map(Arc::new(value)))
            }
            "array" | "list" => {
                self.symbol('<')?;
                let item = self.data_type(depth + 1)?;
                self.symbol('>')?;
                Some(DataType::List(Arc::new(item)))
            }
            "struct" | "row" | "record" => self.members(depth),
            "decimal" | "numeric" | "number" | "bignumeric" => {
                self.symbol('(')?;
                let precision: u8 = self.number()?;
                let scale = if self.symbol(',').is_some() {
                    self.number()?
                } else {
                    0
                };
                self.symbol(')')?;
                let known = (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
                known.then_some(DataType::Decimal { precision, scale })
            }
            name => {
                let plain = plain_type(name)?;
                if self.symbol('(').is_some() {
                    // A length or a precision, as in `varchar(20)`: the type stays the same.
                    let _: u32 = self.number()?;
                    self.symbol(')')?;
                }
                Some(plain)
            }
        }
    }

    fn members(&mut self, depth: usize) -> Option<DataType> {
        self.symbol('<')?;
        let mut fields = Vec::new();
        loop {
            let name = self.name(|c| !matches!(c, ':' | ',' | '<' | '>' | ' '))?;
            self.symbol(':')?;
            fields.push(Field::new(name, self.data_type(depth + 1)?));
            if self.symbol(',').is_none() {
                self.symbol('>')?;
                return Some(DataType::Struct(fields.into()));
            }
        }
    }

    fn name(&mut self, allowed: impl Fn(char) -> bool) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c| !allowed(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        (!name.is_empty()).then_some(name)
    }

    fn symbol(&mut self, symbol: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(symbol)?.trim_start();
        Some(())
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.name(|c| c.is_ascii_digit())?.parse().ok()
    }
}

fn plain_type(name: &str) -> Option<DataType> {
    Some(match name {
        "bool" | "boolean" => DataType::Bool,
        "tinyint" | "smallint" | "int" | "integer" | "bigint" | "long" | "short" | "byte"
        | "int2" | "int4" | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16"
        | "uint32" => DataType::Int64,
        "float" | "float32" | "float64" | "float4" | "float8" | "double" | "real" => {
            DataType::Float64
        }
        "string" | "text" | "varchar" | "char" | "character" | "nvarchar" | "uuid" | "utf8" => {
            DataType::String
        }
        "bytes" | "binary" | "varbinary" | "blob" | "bytea" => DataType::Bytes,
        "timestamp" | "timestamptz" | "datetime" | "timestamp_tz" | "timestamp_ntz" => {
            DataType::Timestamp
        }
        "date" => DataType::Date,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_and_write_alike() {
        for (text, display) in [
            ("DECIMAL(12, 2)", "decimal(12,2)"),
            ("numeric(5)", "decimal(5,0)"),
            ("map<string, double>", "map<string,float64>"),
            ("ARRAY<INT>", "list<int64>"),
            (
                "struct<a: int, b: map<string, list<date>>>",
                "struct<a:int64,b:map<string,list<date>>>",
            ),
            ("VARCHAR(20)", "string"),
            ("bytea", "bytes"),
        ] {
            let parsed = parse_type(text).unwrap();
            assert_eq!(parsed.to_string(), display);
            assert_eq!(parse_type(display).unwrap(), parsed);
        }
        for text in [
            "",
            "decimal",
            "decimal(40,2)",
            "map<int,int>",
            "array<",
            "geometry",
            "int int",
            "decimal(2,3)",
        ] {
            assert_eq!(parse_type(text), None, "{text}");
        }
        assert_eq!(parse_type(&"list<".repeat(1000)), None);
    }
}
