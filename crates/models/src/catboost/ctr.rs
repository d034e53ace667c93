//! Statistics of categories (CTRs): what training knew of a category's target, or of a combination of categories and
//! answers, looked up in the model's tables by hash. Each is one more column of a row.

use std::collections::HashMap;

use headwater_schema::Problem;

use super::{Features, number};
use crate::document::Document;
use crate::limits::{NODES_MAX, at_most};
use crate::load::{corrupt, unsupported};
use crate::single;

/// A category that training didn't see.
const UNSEEN: u32 = 0x7fff_ffff;
/// An empty place of a table.
const EMPTY: u64 = u64::MAX;
/// CatBoost's hash of combinations.
const MULTIPLIER: u64 = 0x4906_ba49_4954_cb65;
/// Statistics of one model.
const CTRS_MAX: usize = 100_000;

/// All statistics that a model's splits look at.
#[derive(Debug)]
pub(crate) struct Ctrs {
    tables: Vec<Table>,
    ctrs: Vec<Ctr>,
    /// Columns of a row before them.
    inputs: usize,
}

#[derive(Debug)]
struct Ctr {
    elements: Vec<Element>,
    table: usize,
    kind: Kind,
    target_border: usize,
    prior: (f32, f32),
    shift: f32,
    scale: f32,
    /// How many splits look at it.
    borders: usize,
}

/// What is hashed together.
#[derive(Debug)]
enum Element {
    Category(usize),
    Above {
        column: usize,
        threshold: f64,
        missing_above: bool,
    },
    Exactly {
        column: usize,
        value: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The share of targets above a border.
    Borders,
    /// The share of targets in a bucket.
    Buckets,
    /// The mean of targets.
    Mean,
    /// How often it occurs.
    Counter,
}

#[derive(Debug)]
struct Table {
    /// From a hash to its first count.
    places: HashMap<u64, usize>,
    counts: Vec<f32>,
    /// Counts of each hash.
    width: usize,
    denominator: f32,
}

impl Ctrs {
    pub(super) fn read(document: &Document, features: &Features) -> Result<Self, Problem> {
        let info = document.get("features_info")?;
        let listed = info
            .find("ctrs")
            .map_or(Ok([].as_slice()), |_| info.list("ctrs"))?;
        at_most("statistics of categories", listed.len(), CTRS_MAX)?;
        let mut found = Self {
            tables: Vec::new(),
            ctrs: Vec::with_capacity(listed.len()),
            inputs: features.inputs.len(),
        };
        let mut known: HashMap<&str, usize> = HashMap::new();
        for ctr in listed {
            let identifier = ctr.text("identifier")?;
            let kind = Kind::parse(ctr.text("ctr_type")?)?;
            let table = match known.get(identifier) {
                Some(table) => *table,
                None => {
                    let data = document.get("ctr_data")?.get(identifier)?;
                    found.tables.push(Table::read(data, kind)?);
                    known.insert(identifier, found.tables.len() - 1);
                    found.tables.len() - 1
                }
            };
            found.ctrs.push(Ctr::read(ctr, kind, table, features)?);
            let target_border = ctr.count("target_border_idx")?;
            if kind == Kind::Buckets && target_border >= found.tables[table].width {
                return Err(corrupt(format!(
                    "Its target border {target_border} isn't there"
                )));
            }
        }
        Ok(found)
    }

    pub(crate) fn len(&self) -> usize {
        self.ctrs.len()
    }

    pub(super) fn borders(&self) -> impl Iterator<Item = usize> {
        self.ctrs.iter().map(|ctr| ctr.borders)
    }

    /// Fills the columns after a row's own.
    pub(crate) fn fill(&self, row: &mut [f64]) {
        let (inputs, columns) = row.split_at_mut(self.inputs);
        for (column, ctr) in columns.iter_mut().zip(&self.ctrs) {
            *column = f64::from(ctr.value(inputs, &self.tables[ctr.table]));
        }
    }

    /// Whether one is of the target, and not of how often a category occurs.
    pub(super) fn know_the_target(&self) -> bool {
        self.ctrs.iter().any(|ctr| ctr.kind != Kind::Counter)
    }

    /// Columns of the categories that a statistic is made of, by statistic. CatBoost's contributions leave out the answers
    /// that are combined with them, and so do these.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Vec<usize>> {
        self.ctrs.iter().map(|ctr| {
            let mut columns: Vec<usize> =
                ctr.elements.iter().filter_map(Element::category).collect();
            columns.sort_unstable();
            columns.dedup();
            columns
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let of = |t: &Table| t.places.len() * 32 + t.counts.len() * 4;
        self.tables.iter().map(of).sum()
    }
}

impl Ctr {
    fn read(
        ctr: &Document,
        kind: Kind,
        table: usize,
        features: &Features,
    ) -> Result<Self, Problem> {
        let elements = ctr.list("elements")?.iter();
        let elements: Result<_, Problem> = elements.map(|e| Element::read(e, features)).collect();
        Ok(Self {
            elements: elements?,
            table,
            kind,
            target_border: ctr.count("target_border_idx")?,
            prior: (
                ctr.number("prior_numerator")? as f32,
                ctr.number("prior_denomerator")? as f32,
            ),
            shift: ctr.number("shift")? as f32,
            scale: ctr.number("scale")? as f32,
            borders: ctr.numbers("borders")?.len(),
        })
    }

    fn value(&self, row: &[f64], table: &Table) -> f32 {
        let hash = self.elements.iter().fold(0u64, |hash, element| {
            let part = element.part(row).wrapping_mul(MULTIPLIER);
            hash.wrapping_add(part).wrapping_mul(MULTIPLIER)
        });
        let counts = table.find(hash);
        let (good, total) = match (self.kind, counts) {
            (Kind::Counter, counts) => (counts.map_or(0.0, |c| c[0]), table.denominator),
            (_, None) => (0.0, 0.0),
            (Kind::Mean, Some(counts)) => (counts[0], counts[1]),
            (Kind::Buckets, Some(counts)) => (counts[self.target_border], counts.iter().sum()),
            (Kind::Borders, Some(counts)) => {
                let above = (self.target_border + 1).min(counts.len());
                (counts[above..].iter().sum(), counts.iter().sum())
            }
        };
        ((good + self.prior.0) / (total + self.prior.1) + self.shift) * self.scale
    }
}

impl Element {
    fn read(element: &Document, features: &Features) -> Result<Self, Problem> {
        match element.text("combination_element")? {
            "cat_feature_value" => {
                let column = features.category(number(element, "cat_feature_index")?)?;
                Ok(Self::Category(column))
            }
            "float_feature" => {
                let float = features.float(number(element, "float_feature_index")?)?;
                Ok(Self::Above {
                    column: float.column,
                    threshold: single::at_most(element.number("border")? as f32),
                    missing_above: float.missing_above,
                })
            }
            "cat_feature_exact_value" => {
                let column = features.category(number(element, "cat_feature_index")?)?;
                let value = element.number("value")?;
                let value = if value < 0.0 {
                    f64::from(value as i32 as u32)
                } else {
                    value
                };
                Ok(Self::Exactly { column, value })
            }
            other => Err(unsupported(format!("CatBoost's combination of `{other}`"))),
        }
    }

    fn category(&self) -> Option<usize> {
        match self {
            Self::Category(column) => Some(*column),
            Self::Above { .. } | Self::Exactly { .. } => None,
        }
    }

    fn part(&self, row: &[f64]) -> u64 {
        match *self {
            Self::Category(column) => {
                let value = row[column];
                let hash = if value.is_nan() { UNSEEN } else { value as u32 };
                // CatBoost widens hashes as signed numbers.
                i64::from(hash as i32) as u64
            }
            Self::Above {
                column,
                threshold,
                missing_above,
            } => {
                let value = row[column];
                u64::from(if value.is_nan() {
                    missing_above
                } else {
                    value > threshold
                })
            }
            Self::Exactly { column, value } => u64::from(row[column] == value),
        }
    }
}

impl Kind {
    fn parse(name: &str) -> Result<Self, Problem> {
        Ok(match name {
            "Borders" => Self::Borders,
            "Buckets" => Self::Buckets,
            "BinarizedTargetMeanValue" | "FloatTargetMeanValue" => Self::Mean,
            "Counter" | "FeatureFreq" => Self::Counter,
            _ => return Err(unsupported(format!("CatBoost's statistic `{name}`"))),
        })
    }
}

impl Table {
    /// `hash_map`: a hash as text and its counts, one after another.
    fn read(data: &Document, kind: Kind) -> Result<Self, Problem> {
        let stride = data.count("hash_stride")?;
        let least = if kind == Kind::Mean { 3 } else { 2 };
        let list = data.list("hash_map")?;
        if stride < least || !list.len().is_multiple_of(stride) {
            return Err(corrupt(format!(
                "A table of {} values has {stride} of them for each hash",
                list.len()
            )));
        }
        at_most("values in a table of categories", list.len(), NODES_MAX)?;
        let mut table = Self {
            places: HashMap::with_capacity(list.len() / stride),
            counts: Vec::with_capacity(list.len()),
            width: stride - 1,
            denominator: data.number("counter_denominator")? as f32,
        };
        for entry in list.chunks_exact(stride) {
            let hash = match &entry[0] {
                Document::Text(text) => text.parse::<u64>().ok(),
                _ => None,
            };
            let hash = hash.ok_or_else(|| corrupt("A table has a hash that isn't a number"))?;
            if hash == EMPTY {
                continue;
            }
            table.places.insert(hash, table.counts.len());
            for count in &entry[1..] {
                let count = count.to_number();
                let count =
                    count.ok_or_else(|| corrupt("A table has a count that isn't a number"))?;
                table.counts.push(count as f32);
            }
        }
        Ok(table)
    }

    fn find(&self, hash: u64) -> Option<&[f32]> {
        let at = *self.places.get(&hash)?;
        Some(&self.counts[at..at + self.width])
    }
}
