//! A row as its trees ask for it. Each place of an encoded row answers tests of one kind at one column: how many of their
//! thresholds the value is above, or whether it is one of some categories.

use std::collections::HashMap;

use headwater_schema::Problem;

use super::{Test, ZERO_MAX};
use crate::limits::{MEMBERS_MAX, PLACES_MAX, at_most};

/// Codes of categories end here.
const CODES_END: f64 = 2_147_483_648.0;
/// Whole numbers that floats tell apart end here.
const FLOAT_CODES_END: f64 = 16_777_216.0;

/// What a place answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    /// How many thresholds the value is above: all or none of them where it is missing.
    Above {
        missing_high: bool,
        zero_missing: bool,
    },
    /// Whether the value's whole part is one of these codes.
    InSet {
        codes: Vec<u32>,
        missing_in: bool,
        invalid_in: bool,
    },
    /// Whether the value is the one of these bits.
    Equals { bits: u64, missing_in: bool },
}

impl Question {
    fn of(test: &Test) -> Self {
        match test {
            Test::AtMost {
                missing_right,
                zero_missing,
                ..
            } => Self::Above {
                missing_high: *missing_right,
                zero_missing: *zero_missing,
            },
            Test::InSet {
                codes,
                member_right,
                missing_right,
                invalid_right,
            } => Self::InSet {
                codes: codes.clone(),
                missing_in: missing_right == member_right,
                invalid_in: invalid_right == member_right,
            },
            Test::Equal {
                value,
                missing_member,
                ..
            } => Self::Equals {
                bits: value.to_bits(),
                missing_in: *missing_member,
            },
        }
    }
}

/// How many of some thresholds a column's value is above.
#[derive(Debug)]
struct Ranks {
    column: u32,
    place: u32,
    zero_missing: bool,
    missing_rank: u32,
    /// Where its thresholds are.
    begin: usize,
    end: usize,
}

#[derive(Debug)]
struct Equality {
    column: u32,
    place: u32,
    value: f64,
    missing_in: bool,
}

/// All sets of a column's categories. `members` are the places whose sets have a code, code by code.
#[derive(Debug, Default)]
struct Categories {
    column: u32,
    /// In order.
    codes: Vec<u32>,
    /// Where the places of each code end.
    ends: Vec<u32>,
    members: Vec<u32>,
    missing_in: Vec<u32>,
    invalid_in: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Encoder {
    ranks: Vec<Ranks>,
    thresholds: Vec<f64>,
    equalities: Vec<Equality>,
    categories: Vec<Categories>,
    /// The column that each place is about.
    columns: Vec<u32>,
    /// Values are rounded to floats before they are categories, as XGBoost does.
    single: bool,
}

impl Encoder {
    /// Cells of an encoded row: at least one, which the leaves look at.
    pub(super) fn places(&self) -> usize {
        self.columns.len().max(1)
    }

    pub(super) fn column(&self, place: usize) -> usize {
        self.columns[place] as usize
    }

    /// Sets all cells of a row that aren't zero.
    #[inline]
    pub(super) fn encode(&self, row: &[f64], mut set: impl FnMut(usize, u32)) {
        for ranks in &self.ranks {
            let value = row[ranks.column as usize];
            let thresholds = &self.thresholds[ranks.begin..ranks.end];
            let above = thresholds.partition_point(|t| value > *t) as u32;
            let missing = value.is_nan() || (ranks.zero_missing && value.abs() <= ZERO_MAX);
            let rank = if missing { ranks.missing_rank } else { above };
            set(ranks.place as usize, rank);
        }
        for equality in &self.equalities {
            let value = row[equality.column as usize];
            let is = value == equality.value || (value.is_nan() && equality.missing_in);
            set(equality.place as usize, u32::from(is));
        }
        for categories in &self.categories {
            let value = row[categories.column as usize];
            for place in categories.places(value, self.single) {
                set(*place as usize, 1);
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let of_categories = |c: &Categories| {
            let numbers = c.codes.len() + c.ends.len() + c.members.len();
            size_of::<Categories>()
                + (numbers + c.missing_in.len() + c.invalid_in.len()) * size_of::<u32>()
        };
        self.ranks.len() * size_of::<Ranks>()
            + self.thresholds.len() * size_of::<f64>()
            + self.equalities.len() * size_of::<Equality>()
            + self.columns.len() * size_of::<u32>()
            + self.categories.iter().map(of_categories).sum::<usize>()
    }
}

impl Categories {
    /// The places whose sets the value is in.
    fn places(&self, value: f64, single: bool) -> &[u32] {
        if value.is_nan() {
            return &self.missing_in;
        }
        // A fraction is cut off, so that −0.5 is 0; XGBoost rounds to floats first, and takes nothing below zero.
        let (value, invalid) = if single {
            let value = f64::from(value as f32);
            (value, !(0.0..FLOAT_CODES_END).contains(&value))
        } else {
            (value, value <= -1.0 || value >= CODES_END)
        };
        if invalid {
            return &self.invalid_in;
        }
        match self.codes.binary_search(&(value as u32)) {
            Err(_) => &[],
            Ok(code) => {
                let begin = code.checked_sub(1).map_or(0, |before| self.ends[before]);
                &self.members[begin as usize..self.ends[code] as usize]
            }
        }
    }
}

/// Gives each question a place, once.
#[derive(Debug, Default)]
pub(super) struct Questions {
    places: HashMap<(u32, Question), u32>,
    columns: Vec<u32>,
    /// Of all sets together.
    members: usize,
}

impl Questions {
    pub(super) fn places(&self) -> usize {
        self.columns.len()
    }

    /// Where a test of a column finds its answer.
    pub(super) fn place(&mut self, column: u32, test: &Test) -> Result<u32, Problem> {
        let key = (column, Question::of(test));
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        at_most(
            "different tests of columns",
            self.columns.len() + 1,
            PLACES_MAX,
        )?;
        if let Question::InSet { codes, .. } = &key.1 {
            self.members += codes.len();
            at_most("categories in sets", self.members, MEMBERS_MAX)?;
        }
        let place = self.columns.len() as u32;
        self.columns.push(column);
        self.places.insert(key, place);
        Ok(place)
    }

    /// An encoder for tests with these thresholds at each place.
    pub(super) fn encoder(self, thresholds: &[Vec<f64>], single: bool) -> Encoder {
        let mut encoder = Encoder {
            ranks: Vec::new(),
            thresholds: Vec::new(),
            equalities: Vec::new(),
            categories: Vec::new(),
            columns: self.columns,
            single,
        };
        let mut asked: Vec<_> = self.places.into_iter().collect();
        asked.sort_unstable_by_key(|((column, _), place)| (*column, *place));
        let mut sets: Vec<(u32, u32)> = Vec::new();
        for ((column, question), place) in asked {
            match question {
                Question::Above {
                    missing_high,
                    zero_missing,
                } => {
                    let own = &thresholds[place as usize];
                    let begin = encoder.thresholds.len();
                    encoder.thresholds.extend_from_slice(own);
                    encoder.ranks.push(Ranks {
                        column,
                        place,
                        zero_missing,
                        missing_rank: if missing_high { own.len() as u32 } else { 0 },
                        begin,
                        end: encoder.thresholds.len(),
                    });
                }
                Question::Equals { bits, missing_in } => encoder.equalities.push(Equality {
                    column,
                    place,
                    value: f64::from_bits(bits),
                    missing_in,
                }),
                Question::InSet {
                    codes,
                    missing_in,
                    invalid_in,
                } => {
                    if encoder.categories.last().is_none_or(|c| c.column != column) {
                        encoder.close_categories(&mut sets);
                        encoder.categories.push(Categories {
                            column,
                            ..Categories::default()
                        });
                    }
                    sets.extend(codes.iter().map(|code| (*code, place)));
                    if let Some(categories) = encoder.categories.last_mut() {
                        categories.missing_in.extend(missing_in.then_some(place));
                        categories.invalid_in.extend(invalid_in.then_some(place));
                    }
                }
            }
        }
        encoder.close_categories(&mut sets);
        encoder
    }
}

impl Encoder {
    /// The last column has all its sets: `sets` are their codes, each with the set's place.
    fn close_categories(&mut self, sets: &mut Vec<(u32, u32)>) {
        let Some(categories) = self.categories.last_mut() else {
            return;
        };
        sets.sort_unstable();
        for (code, place) in sets.drain(..) {
            if categories.codes.last() != Some(&code) {
                categories.codes.push(code);
                categories.ends.push(0);
            }
            categories.members.push(place);
            if let Some(end) = categories.ends.last_mut() {
                *end = categories.members.len() as u32;
            }
        }
    }
}
