//! The types a value can have, and how each is laid out in Arrow.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes as arrow_types;
use serde::{Deserialize, Serialize};

/// The type of a column or of an expression's result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    Bool,
    Int64,
    Float64,
    /// A decimal of at most 38 digits, `scale` of them after the point.
    Decimal {
        precision: u8,
        scale: i8,
    },
    String,
    Bytes,
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
    /// Days since the Unix epoch.
    Date,
    List(Arc<DataType>),
    Struct(Arc<[Field]>),
    /// A map from strings to values of one type.
    Map(Arc<DataType>),
}

/// A named member of a struct, or a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    pub name: Arc<str>,
    pub data_type: DataType,
}

impl Field {
    pub fn new(name: impl Into<Arc<str>>, data_type: DataType) -> Self {
        Self {
            name: name.into(),
            data_type,
        }
    }
}

/// An Arrow type that no Headwater type stands for.
#[derive(Debug, thiserror::Error)]
#[error("the type {0} has no counterpart here")]
pub struct UnsupportedType(pub String);

impl DataType {
    /// Whether `sum` and `avg` take it.
    pub fn is_numeric(&self) -> bool {
        matches!(self, Self::Int64 | Self::Float64 | Self::Decimal { .. })
    }

    /// Whether `min`, `max` and sorting take it.
    pub fn is_ordered(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Struct(_) | Self::Map(_))
    }

    /// Whether an entity's key may have it: never floats, decimals, bytes or nested types.
    pub fn is_key(&self) -> bool {
        matches!(
            self,
            Self::Bool | Self::Int64 | Self::String | Self::Timestamp | Self::Date
        )
    }

    /// The Arrow type that holds it.
    pub fn to_arrow(&self) -> arrow_types::DataType {
        use arrow_types::DataType as A;
        match self {
            Self::Bool => A::Boolean,
            Self::Int64 => A::Int64,
            Self::Float64 => A::Float64,
            Self::Decimal { precision, scale } => A::Decimal128(*precision, *scale),
            Self::String => A::Utf8,
            Self::Bytes => A::Binary,
            Self::Timestamp => A::Timestamp(arrow_types::TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => A::Date32,
            Self::List(item) => A::List(Arc::new(arrow_types::Field::new(
                "item",
                item.to_arrow(),
                true,
            ))),
            Self::Struct(fields) => A::Struct(fields.iter().map(Field::to_arrow).collect()),
            Self::Map(value) => A::Map(
                Arc::new(arrow_types::Field::new(
                    "entries",
                    A::Struct(
                        vec![
                            arrow_types::Field::new("keys", A::Utf8, false),
                            arrow_types::Field::new("values", value.to_arrow(), true),
                        ]
                        .into(),
                    ),
                    false,
                )),
                false,
            ),
        }
    }

    /// The type that an Arrow array of `arrow` is read as; narrower integers and floats widen.
    pub fn from_arrow(arrow: &arrow_types::DataType) -> Result<Self, UnsupportedType> {
        use arrow_types::DataType as A;
        Ok(match arrow {
            A::Boolean => Self::Bool,
            A::Int8 | A::Int16 | A::Int32 | A::Int64 | A::UInt8 | A::UInt16 | A::UInt32 => {
                Self::Int64
            }
            A::Float16 | A::Float32 | A::Float64 => Self::Float64,
            A::Decimal128(precision, scale) => Self::Decimal {
                precision: *precision,
                scale: *scale,
            },
            A::Utf8 | A::LargeUtf8 | A::Utf8View => Self::String,
            A::Binary | A::LargeBinary | A::BinaryView => Self::Bytes,
            A::Timestamp(_, _) => Self::Timestamp,
            A::Date32 | A::Date64 => Self::Date,
            A::List(item) | A::LargeList(item) => {
                Self::List(Arc::new(Self::from_arrow(item.data_type())?))
            }
            A::Struct(fields) => Self::Struct(
                fields
                    .iter()
                    .map(|f| {
                        Ok(Field::new(
                            f.name().as_str(),
                            Self::from_arrow(f.data_type())?,
                        ))
                    })
                    .collect::<Result<_, UnsupportedType>>()?,
            ),
            A::Map(entries, _) => match entries.data_type() {
                A::Struct(kv) if kv.len() == 2 => {
                    Self::Map(Arc::new(Self::from_arrow(kv[1].data_type())?))
                }
                other => return Err(UnsupportedType(other.to_string())),
            },
            A::Dictionary(_, values) => Self::from_arrow(values)?,
            other => return Err(UnsupportedType(other.to_string())),
        })
    }
}

impl Field {
    /// The nullable Arrow field of the same name.
    pub fn to_arrow(&self) -> arrow_types::Field {
        arrow_types::Field::new(self.name.as_ref(), self.data_type.to_arrow(), true)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int64 => f.write_str("int64"),
            Self::Float64 => f.write_str("float64"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{}", field.name, field.data_type)?;
                }
                f.write_str(">")
            }
            Self::Map(value) => write!(f, "map<string,{value}>"),
        }
    }
}
