//! Networks of text: a tokenizer makes tokens of a text, as the network was trained with, and what the network says
//! of each token is pooled to one vector.
//!
//! The file is the network's, with two notes in its metadata: the tokenizer, as `tokenizer.json` of the package
//! `tokenizers` has it, and what is to be done with the tokens. A text is run alone and at its own length, without
//! padding, so that its vector is the same bits alone and in any batch.

use std::fmt;
use std::sync::Arc;

use headwater_schema::Problem;
use serde::Deserialize;
use tokenizers::{Tokenizer, TruncationParams};
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::DimLike;

use super::engine::{Engine, Graph, contract, failed};
use super::graph::note;
use super::network::{root, unpanicked};
use super::{graph, operators};
use crate::limits::{NAME_BYTES_MAX, TOKENS_MAX, at_most};
use crate::load::{corrupt, unsupported};
use crate::{Input, InputKind, ModelContract, Output, Predictor, Rows};

/// Where a file keeps its tokenizer.
const TOKENIZER: &str = "headwater.tokenizer";
/// Where a file says what is done with texts.
const TEXT: &str = "headwater.text";
/// Tokens of a text where neither the file nor its tokenizer says.
const TOKENS: usize = 512;
/// Below it a vector's length counts as this, so that a vector of zeros stays one.
const LENGTH_MIN: f64 = 1e-12;

/// What is done with texts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextNote {
    /// The input's name.
    #[serde(default = "input_name")]
    input: String,
    /// Tokens that are read of a text, those at its ends included; what is beyond them is left out.
    max_tokens: Option<usize>,
    /// What becomes of the vectors of tokens.
    pooling: Option<Pooling>,
    /// Whether pooled vectors are brought to the length 1.
    #[serde(default)]
    normalize: bool,
}

fn input_name() -> String {
    "text".into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's, which stands for the whole text.
    Cls,
}

/// What an input of the graph is fed with.
#[derive(Debug, Clone, Copy)]
enum TokenFeed {
    Ids,
    /// Ones: there is no padding.
    Mask,
    /// Zeros: there is one text.
    Types,
}

struct TextNetwork {
    contract: ModelContract,
    tokenizer: Tokenizer,
    feeds: Vec<(TokenFeed, DatumType)>,
    /// Of each output: whether it has a vector for each token.
    by_token: Vec<bool>,
    pooling: Option<Pooling>,
    normalize: bool,
    plan: Arc<TypedRunnableModel>,
    bytes: usize,
}

/// Whether the file has a tokenizer.
pub(super) fn is_text(proto: &pb::ModelProto) -> bool {
    note(proto, TOKENIZER).is_some()
}

pub(super) fn load(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file_bytes: usize,
) -> Result<Box<dyn Predictor>, Problem> {
    unpanicked(|| read(proto, graph, file_bytes))
        .unwrap_or_else(|| Err(corrupt("Its graph doesn't hold together")))
        .map(Graph::boxed)
}

fn read(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file_bytes: usize,
) -> Result<TextNetwork, Problem> {
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    operators::check_text(proto, graph)?;
    let weights = graph::weigh(graph, file_bytes)?;
    let noted = text_note(proto)?;
    let (tokenizer, most) = tokenizer(note(proto, TOKENIZER).unwrap_or_default(), &noted)?;
    let feeds = feeds(graph)?;
    let refused = |e: TractError| unsupported(format!("The graph can't be run: {}", root(&e)));
    let mut model = onnx.model_for_proto_model(proto).map_err(refused)?;
    let tokens = model.symbols.sym("tokens");
    for (place, (_, data_type)) in feeds.iter().enumerate() {
        let shape: TVec<TDim> = tvec!(1.to_dim(), tokens.to_dim());
        let fact = InferenceFact::dt_shape(*data_type, shape);
        model.set_input_fact(place, fact).map_err(refused)?;
    }
    let model = model.into_optimized().map_err(refused)?;
    let (outputs, by_token) = outputs(graph, &model, &noted)?;
    let input = Input {
        name: noted.input,
        kind: InputKind::Text,
    };
    let network = TextNetwork {
        contract: contract(vec![input], outputs, Vec::new(), "a network has none")?,
        tokenizer,
        feeds,
        by_token,
        pooling: noted.pooling,
        normalize: noted.normalize,
        plan: model.into_runnable().map_err(refused)?,
        // A vocabulary's words are kept by number and by word.
        bytes: weights + 4 * note(proto, TOKENIZER).map_or(0, str::len),
    };
    // The longest text, before anybody sends one.
    let mut out = vec![0.0; network.contract.scores];
    network.run_tokens(&vec![0; most], &mut out).map_err(|e| {
        unsupported(format!(
            "A text of {most} tokens can't be run: {}",
            e.detail
        ))
        .hint(format!(
            "Give `max_tokens` in `{TEXT}`, the most that the network was trained with"
        ))
    })?;
    Ok(network)
}

fn text_note(proto: &pb::ModelProto) -> Result<TextNote, Problem> {
    let noted: TextNote = serde_json::from_str(note(proto, TEXT).unwrap_or("{}"))
        .map_err(|e| corrupt(format!("`{TEXT}` can't be read: {e}")))?;
    at_most("bytes in a name", noted.input.len(), NAME_BYTES_MAX)?;
    if noted.max_tokens == Some(0) {
        return Err(corrupt(format!("`max_tokens` in `{TEXT}` is 0")));
    }
    if let Some(tokens) = noted.max_tokens {
        at_most("tokens in a text", tokens, TOKENS_MAX)?;
    }
    Ok(noted)
}

/// The tokenizer, and how many tokens it makes at most.
fn tokenizer(json: &str, noted: &TextNote) -> Result<(Tokenizer, usize), Problem> {
    let cannot = |e: &dyn fmt::Display| corrupt(format!("`{TOKENIZER}` can't be read: {e}"));
    let mut tokenizer: Tokenizer = json.parse().map_err(|e| cannot(&e))?;
    let own = tokenizer.get_truncation().cloned().unwrap_or_default();
    let most = match (noted.max_tokens, tokenizer.get_truncation()) {
        (Some(most), _) => most,
        (None, Some(own)) => own.max_length.min(TOKENS_MAX),
        (None, None) => TOKENS,
    };
    let truncation = TruncationParams {
        max_length: most,
        ..own
    };
    tokenizer
        .with_padding(None)
        .with_truncation(Some(truncation))
        .map_err(|e| cannot(&e))?;
    Ok((tokenizer, most))
}

/// What each input of the graph is fed with, by its name.
fn feeds(graph: &pb::GraphProto) -> Result<Vec<(TokenFeed, DatumType)>, Problem> {
    let given = graph::given(graph).map(|input| {
        let name = input.name.as_str();
        let feed = match name {
            "input_ids" => TokenFeed::Ids,
            "attention_mask" => TokenFeed::Mask,
            "token_type_ids" => TokenFeed::Types,
            _ => {
                return Err(unsupported(format!(
                    "The input `{name}` isn't one that a tokenizer gives: `input_ids`, `attention_mask`, `token_type_ids`"
                )));
            }
        };
        match graph::data_type(input) {
            Some(data_type) if data_type == i64::datum_type() || data_type == i32::datum_type() => {
                Ok((feed, data_type))
            }
            _ => Err(unsupported(format!("The input `{name}` isn't of whole numbers"))),
        }
    });
    let feeds: Vec<_> = given.collect::<Result<_, _>>()?;
    match feeds.iter().any(|(feed, _)| matches!(feed, TokenFeed::Ids)) {
        true => Ok(feeds),
        false => Err(corrupt("Its graph has no input `input_ids`")),
    }
}

/// What is answered for a text, and of which outputs the tokens are pooled.
fn outputs(
    graph: &pb::GraphProto,
    model: &TypedModel,
    noted: &TextNote,
) -> Result<(Vec<Output>, Vec<bool>), Problem> {
    let (mut outputs, mut by_token): (Vec<Output>, Vec<bool>) = Default::default();
    for (place, output) in graph.output.iter().enumerate() {
        let name = output.name.as_str();
        let fact = model
            .output_fact(place)
            .map_err(|e| corrupt(format!("The output `{name}`: {}", root(&e))))?;
        if !fact.datum_type.is_float() {
            return Err(unsupported(format!(
                "The output `{name}` is of {:?}; floats are answered",
                fact.datum_type
            )));
        }
        let dims: TVec<Option<usize>> = fact.shape.iter().map(|d| d.to_usize().ok()).collect();
        let (width, has_tokens) = match dims.as_slice() {
            [Some(1), Some(width)] => (*width, false),
            [Some(1), None, Some(width)] => (*width, true),
            _ => {
                return Err(unsupported(format!(
                    "The output `{name}` is neither a vector nor one for each token"
                )));
            }
        };
        if has_tokens && noted.pooling.is_none() {
            return Err(unsupported(format!(
                "The output `{name}` has a vector for each token"
            ))
            .hint(format!(
                "Say how they become one: {{\"pooling\": \"mean\"}} or \"cls\" in `{TEXT}`, as the model was trained"
            )));
        }
        outputs.push(Output::new(name, width));
        by_token.push(has_tokens);
    }
    Ok((outputs, by_token))
}

impl TextNetwork {
    /// Runs one text's tokens.
    fn run_tokens(&self, ids: &[u32], out: &mut [f64]) -> Result<(), Problem> {
        let mut tensors = tvec!();
        for (feed, data_type) in &self.feeds {
            let numbers: Vec<i64> = match feed {
                TokenFeed::Ids => ids.iter().map(|id| i64::from(*id)).collect(),
                TokenFeed::Mask => vec![1; ids.len()],
                TokenFeed::Types => vec![0; ids.len()],
            };
            let tensor = Tensor::from_shape(&[1, ids.len()], &numbers);
            let tensor = tensor.and_then(|t| Ok(t.cast_to_dt(*data_type)?.into_owned()));
            tensors.push(tensor.map_err(|e| failed(root(&e)))?.into_tvalue());
        }
        let values = unpanicked(|| self.plan.run(tensors))
            .ok_or_else(|| failed("It broke off"))?
            .map_err(|e| failed(root(&e)))?;
        let mut rest = out;
        for ((value, by_token), output) in values
            .iter()
            .zip(&self.by_token)
            .zip(&self.contract.outputs)
        {
            let numbers = value.cast_to::<f64>().map_err(|e| failed(root(&e)))?;
            let numbers = numbers
                .to_plain_array_view::<f64>()
                .map_err(|e| failed(root(&e)))?;
            let numbers: Vec<f64> = numbers.iter().copied().collect();
            let tokens = if *by_token { ids.len() } else { 1 };
            if numbers.len() != tokens * output.width || rest.len() < output.width {
                return Err(failed("It answered another number of vectors"));
            }
            let (vector, more) = rest.split_at_mut(output.width);
            rest = more;
            if *by_token {
                pool(&numbers, self.pooling, vector);
                if self.normalize {
                    normalize(vector);
                }
            } else {
                vector.copy_from_slice(&numbers);
            }
        }
        Ok(())
    }

    fn read_text(&self, text: &str) -> Result<Vec<u32>, Problem> {
        let tokens = unpanicked(|| self.tokenizer.encode_fast(text, true));
        let cannot = |detail: String| {
            Problem::user("model-input", "A text can't be split into tokens").detail(detail)
        };
        tokens
            .ok_or_else(|| cannot("The tokenizer broke off".into()))?
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| cannot(e.to_string()))
    }
}

/// One vector of those of the tokens.
fn pool(tokens: &[f64], pooling: Option<Pooling>, out: &mut [f64]) {
    let width = out.len();
    match pooling {
        Some(Pooling::Cls) => out.copy_from_slice(&tokens[..width]),
        Some(Pooling::Mean) | None => {
            out.fill(0.0);
            for token in tokens.chunks_exact(width) {
                out.iter_mut().zip(token).for_each(|(sum, n)| *sum += n);
            }
            let count = (tokens.len() / width) as f64;
            out.iter_mut().for_each(|sum| *sum /= count);
        }
    }
}

fn normalize(vector: &mut [f64]) {
    let length = vector.iter().map(|n| n * n).sum::<f64>().sqrt();
    let length = length.max(LENGTH_MIN);
    vector.iter_mut().for_each(|n| *n /= length);
}

impl Engine for TextNetwork {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    /// NaN for a text that is missing, and for one of which the tokenizer makes nothing.
    fn run(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let scores = self.contract.scores;
        for (number, out) in rows.values().iter().zip(out.chunks_exact_mut(scores)) {
            let tokens = match rows.text(*number)? {
                Some(text) => self.read_text(text)?,
                None => Vec::new(),
            };
            match tokens.is_empty() {
                true => out.fill(f64::NAN),
                false => self.run_tokens(&tokens, out)?,
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
