//! A prediction as tensors: the model's outputs, and the ids by which outcomes name its rows.

use headwater_schema::Problem;

use crate::backend::PredictReply;

/// The output that has the rows' ids, where it is asked for.
const PREDICTION_ID: &str = "prediction_id";

/// A tensor of an answer, with one row for each row asked.
pub(crate) struct OutputTensor {
    pub name: String,
    pub shape: [usize; 2],
    pub data: OutputData,
}

/// Its elements.
pub(crate) enum OutputData {
    Fp64(Vec<f64>),
    Bytes(Vec<String>),
}

impl OutputData {
    pub(crate) fn datatype(&self) -> &'static str {
        match self {
            Self::Fp64(_) => "FP64",
            Self::Bytes(_) => "BYTES",
        }
    }

    /// Little-endian, without gaps; texts each after its length in four bytes.
    pub(crate) fn raw(&self) -> Vec<u8> {
        match self {
            Self::Fp64(numbers) => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
            Self::Bytes(texts) => {
                let one = |text: &String| {
                    let size = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    [&size.to_le_bytes(), text.as_bytes()].concat()
                };
                texts.iter().flat_map(one).collect()
            }
        }
    }
}

/// The outputs that are asked for, in that order; all of the model's where none is named.
pub(crate) fn outputs(reply: &PredictReply, asked: &[&str]) -> Result<Vec<OutputTensor>, Problem> {
    let first = reply.outputs.first();
    let own: Vec<&str> = first.map_or(Vec::new(), |row| row.iter().map(|(n, _)| &**n).collect());
    let wanted = if asked.is_empty() {
        own.as_slice()
    } else {
        asked
    };
    let tensor = |name: &&str| match own.iter().position(|n| n == name) {
        Some(place) => column(reply, place),
        None if *name == PREDICTION_ID => Ok(OutputTensor {
            name: (*name).to_owned(),
            shape: [reply.prediction_ids.len(), 1],
            data: OutputData::Bytes(reply.prediction_ids.clone()),
        }),
        None => Err(Problem::user(
            "unknown-output",
            format!("the model has no output `{name}`"),
        )
        .field("outputs")
        .hint(format!("there are: {}, {PREDICTION_ID}", own.join(", ")))),
    };
    wanted.iter().map(tensor).collect()
}

fn column(reply: &PredictReply, place: usize) -> Result<OutputTensor, Problem> {
    let (name, width) = reply
        .outputs
        .first()
        .and_then(|row| row.get(place))
        .map_or(("", 0), |(name, numbers)| (name, numbers.len()));
    let mut all = Vec::with_capacity(reply.outputs.len() * width);
    for row in &reply.outputs {
        match row.get(place) {
            Some((own, numbers)) if **own == *name && numbers.len() == width => {
                all.extend_from_slice(numbers);
            }
            _ => {
                return Err(Problem::external(
                    "outputs-differ",
                    "rows were answered by versions with other outputs",
                )
                .hint("name a version, or ask `/v1/models/…/predict`"));
            }
        }
    }
    Ok(OutputTensor {
        name: name.to_owned(),
        shape: [reply.outputs.len(), width],
        data: OutputData::Fp64(all),
    })
}

/// What is told besides: whether a fallback answered, and why.
pub(crate) fn parameters(reply: &PredictReply) -> Vec<(&'static str, String)> {
    let Some(degraded) = &reply.degraded else {
        return Vec::new();
    };
    vec![
        ("degraded", degraded.reason.clone()),
        ("fallback", degraded.fallback.to_owned()),
    ]
}
