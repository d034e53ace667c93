//! The file that is taken along. `sections.rs` says how it lies in bytes; here is what it says.
//!
//! | section | holds |
//! |---|---|
//! | 1 head | JSON: which model and version, as of which sequence, from when on facts are known |
//! | 2 definitions | JSON: contracts, entities, views, the set and the model, as they were in force |
//! | 3 version | JSON: the version's record |
//! | 4 model | the model file |
//! | 5 entities | whom it knows: records of an entity's name and a key |
//! | 6 facts | `u32` count, a sequence and a moment of arrival for each, then a batch of `schema`'s codec; any number of these |
//! | 7 states | records of a view's state id, a key, and a state of `aggregate`'s codec; any number of these |

use std::collections::BTreeMap;

use headwater_env::Env;
use headwater_facts::KeptFacts;
use headwater_features::{Documents, StoredState};
use headwater_models::repository::VersionRecord;
use headwater_schema::codec::{decode_batch, encode_batch};
use headwater_schema::{Micros, Problem, Sequence};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod sections;

pub use sections::FORMAT;
use sections::{Packed, SectionReader, corrupt};

const HEAD: u8 = 1;
const DEFINITIONS: u8 = 2;
const VERSION: u8 = 3;
const MODEL: u8 = 4;
const ENTITIES: u8 = 5;
const FACTS: u8 = 6;
const STATES: u8 = 7;
/// Bytes of states after which another section begins.
const STATES_BYTES: usize = 8 << 20;

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub model: String,
    pub version: String,
    /// The alias that was asked for, where it was one.
    pub alias: Option<String>,
    pub feature_set: String,
    /// Everything that the server knew of the entities up to this sequence is in it.
    pub sequence: Sequence,
    /// The oldest sequence that the server kept.
    pub first_sequence: Sequence,
    /// When it was made, in microseconds since 1970.
    pub made_at: Micros,
    /// The program that made it.
    pub made_by: String,
    /// For each contract of which older facts aren't in it: the newest event time that is missing.
    pub missing_to: BTreeMap<String, Micros>,
    /// For each contract: the event time up to which states hold its facts only all together.
    pub folded_to: BTreeMap<String, Micros>,
}

/// Everything that is taken along.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub head: Head,
    pub definitions: Documents,
    pub record: VersionRecord,
    pub model_file: Vec<u8>,
    /// Entities by their names, and the bytes of their keys.
    pub entities: Vec<(String, Vec<u8>)>,
    pub facts: Vec<KeptFacts>,
    pub states: Vec<StoredState>,
}

impl Bundle {
    /// The file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Problem> {
        let mut out = Packed::new();
        out.section(HEAD, &json(&self.head)?)?;
        out.section(DEFINITIONS, &json(&self.definitions)?)?;
        out.section(VERSION, &json(&self.record)?)?;
        out.section(MODEL, &self.model_file)?;
        let mut entities = Vec::new();
        for (entity, key) in &self.entities {
            put(&mut entities, entity.as_bytes());
            put(&mut entities, key);
        }
        out.section(ENTITIES, &entities)?;
        for kept in &self.facts {
            out.section(FACTS, &facts_bytes(kept))?;
        }
        let mut states = Vec::new();
        for stored in &self.states {
            put(&mut states, stored.view.as_bytes());
            put(&mut states, &stored.key);
            put(&mut states, &stored.state);
            if states.len() >= STATES_BYTES {
                out.section(STATES, &std::mem::take(&mut states))?;
            }
        }
        out.section(STATES, &states)?;
        out.finish()
    }

    /// Reads what [`Bundle::to_bytes`] gave. What is cut off, damaged or of a newer format is refused as a whole.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let mut reader = SectionReader::new(bytes)?;
        let head: Head = from_json(&reader.expect(HEAD)?)?;
        let definitions = from_json(&reader.expect(DEFINITIONS)?)?;
        let record = from_json(&reader.expect(VERSION)?)?;
        let model_file = reader.expect(MODEL)?;
        let mut entities = Vec::new();
        let listed = reader.expect(ENTITIES)?;
        let mut rest = listed.as_slice();
        while !rest.is_empty() {
            entities.push((text(&mut rest)?, part(&mut rest)?.to_vec()));
        }
        let (mut facts, mut states) = (Vec::new(), Vec::new());
        while let Some((kind, payload)) = reader.next()? {
            match kind {
                FACTS => facts.push(read_facts(&payload)?),
                STATES => read_states(&payload, &mut states)?,
                other => return Err(corrupt(format!("a section of kind {other} stands there"))),
            }
        }
        Ok(Self {
            head,
            definitions,
            record,
            model_file,
            entities,
            facts,
            states,
        })
    }

    /// Reads the file at a path.
    pub fn read(env: &Env, path: &std::path::Path) -> Result<Vec<u8>, Problem> {
        let unreadable = |detail: &dyn std::fmt::Display| {
            let title = format!("the bundle {} can't be read", path.display());
            Problem::external("unreadable-file", title)
                .detail(detail)
                .hint("make one with `headwater bundle --model MODEL --out FILE`")
        };
        let file = env.files.open_read(path).map_err(|e| unreadable(&e))?;
        let length = file.length().map_err(|e| unreadable(&e))?;
        sections::check_length(length)?;
        env.files.read(path).map_err(|e| unreadable(&e))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value)
        .map_err(|e| Problem::internal("bundle", "a bundle can't be written").detail(e))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(corrupt)
}

/// Appends bytes behind their length.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes what [`put`] appended.
fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Problem> {
    let short = || corrupt("a record is cut off");
    let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (part, tail) = tail.split_at_checked(length).ok_or_else(short)?;
    *rest = tail;
    Ok(part)
}

fn text(rest: &mut &[u8]) -> Result<String, Problem> {
    String::from_utf8(part(rest)?.to_vec()).map_err(corrupt)
}

fn facts_bytes(kept: &KeptFacts) -> Vec<u8> {
    let mut out = (kept.sequences.len() as u32).to_le_bytes().to_vec();
    for (sequence, time) in kept.sequences.iter().zip(&kept.ingest_times) {
        out.extend(sequence.to_le_bytes());
        out.extend(time.to_le_bytes());
    }
    out.extend(encode_batch(&kept.facts));
    out
}

fn read_facts(payload: &[u8]) -> Result<KeptFacts, Problem> {
    let short = || corrupt("facts are cut off");
    let (count, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
    let count = u32::from_le_bytes(*count) as usize;
    let (places, batch) = rest
        .split_at_checked(count.saturating_mul(16))
        .ok_or_else(short)?;
    let (mut sequences, mut ingest_times) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (pairs, _) = places.as_chunks::<16>();
    for pair in pairs {
        let number = u128::from_le_bytes(*pair);
        sequences.push(number as u64);
        ingest_times.push((number >> 64) as i64);
    }
    let facts = decode_batch(batch)?;
    if facts.len() != count {
        return Err(corrupt("facts don't have a place each"));
    }
    Ok(KeptFacts {
        facts,
        sequences,
        ingest_times,
    })
}

fn read_states(payload: &[u8], states: &mut Vec<StoredState>) -> Result<(), Problem> {
    let mut rest = payload;
    while !rest.is_empty() {
        states.push(StoredState {
            view: text(&mut rest)?,
            key: part(&mut rest)?.to_vec(),
            state: part(&mut rest)?.to_vec(),
        });
    }
    Ok(())
}
