//! Small networks of text, against what they say by hand.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::{ModelProto, StringStringEntryProto};

use crate::onnx::tests::{INT64, graph, model, node, tokens, weights};
use crate::{Encoded, InputKind, LoadOptions, Predictor, Rows, load};

/// Words by their number; what isn't among them is `[UNK]`, 0.
const WORDS: [&str; 5] = ["[UNK]", "late", "on", "time", "[END]"];
const VECTORS: [[f32; 2]; 5] = [
    [0.0, 0.0],
    [3.0, 4.0],
    [-1.0, 0.5],
    [2.0, -8.0],
    [0.25, 1.0],
];

fn tokenizer() -> String {
    let vocabulary = WORDS.iter().enumerate();
    let vocabulary: serde_json::Map<_, _> = vocabulary
        .map(|(number, word)| ((*word).to_owned(), number.into()))
        .collect();
    serde_json::json!({
        "version": "1.0",
        "truncation": null,
        "padding": {
            "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"
        },
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
    .to_string()
}

/// A vector for each token: its own in a table.
fn network(notes: &[(&str, &str)]) -> ModelProto {
    let mut network = model(graph(
        vec![tokens("input_ids", INT64, None)],
        vec![weights("table", &[5, 2], VECTORS.as_flattened())],
        vec![node("Gather", &["table", "input_ids"], "words")],
        vec![tokens("words", 1, Some(2))],
    ));
    let note = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: (*key).into(),
        value: (*value).into(),
    };
    network.metadata_props = notes.iter().map(note).collect();
    network
}

fn loaded(text: &str) -> Result<Box<dyn Predictor>, headwater_schema::Problem> {
    let json = tokenizer();
    let network = network(&[("headwater.tokenizer", &json), ("headwater.text", text)]);
    load(&network.encode_to_vec(), &LoadOptions::default())
}

fn predict(model: &dyn Predictor, texts: &[Option<&str>]) -> Vec<f64> {
    let mut encoded = Encoded::default();
    for text in texts {
        let value = text.map_or(
            headwater_schema::Value::Null,
            headwater_schema::Value::string,
        );
        encoded.push(&model.contract().inputs[0], &value).unwrap();
    }
    model.predict(encoded.rows(1).unwrap()).unwrap().outputs
}

/// The mean of the words' vectors.
fn by_hand(text: &str) -> Vec<f64> {
    let words: Vec<_> = text.split_whitespace().collect();
    let number = |word: &&str| WORDS.iter().position(|w| w == word).unwrap_or(0);
    let of = |axis: usize| {
        words
            .iter()
            .map(|w| f64::from(VECTORS[number(w)][axis]))
            .sum::<f64>()
    };
    [0, 1].map(|axis| of(axis) / words.len() as f64).to_vec()
}

#[test]
fn a_text_is_the_mean_of_its_words_without_padding() {
    let model = loaded(r#"{"pooling": "mean", "input": "review"}"#).unwrap();
    let input = &model.contract().inputs[0];
    assert_eq!(
        (input.name.as_str(), &input.kind),
        ("review", &InputKind::Text)
    );
    let outputs = &model.contract().outputs;
    assert_eq!((outputs[0].name.as_str(), outputs[0].width), ("words", 2));
    for text in ["late", "on time", "never on time", "late late late on time"] {
        assert_eq!(
            predict(model.as_ref(), &[Some(text)]),
            by_hand(text),
            "{text}"
        );
    }
    // As the tokenizer says, not as it was written.
    assert_eq!(predict(model.as_ref(), &[Some("LATE")]), by_hand("late"));
    for nothing in [None, Some(""), Some(" \t")] {
        let answer = predict(model.as_ref(), &[nothing]);
        assert!(answer.iter().all(|n| n.is_nan()), "{nothing:?}: {answer:?}");
    }
}

#[test]
fn a_vector_may_be_the_first_ones_or_of_length_one() {
    let first = loaded(r#"{"pooling": "cls"}"#).unwrap();
    assert_eq!(predict(first.as_ref(), &[Some("time late")]), [2.0, -8.0]);
    let unit = loaded(r#"{"pooling": "mean", "normalize": true}"#).unwrap();
    assert_eq!(predict(unit.as_ref(), &[Some("late")]), [0.6, 0.8]);
    assert_eq!(predict(unit.as_ref(), &[Some("unheard-of")]), [0.0, 0.0]);
    let short = loaded(r#"{"pooling": "mean", "max_tokens": 2}"#).unwrap();
    assert_eq!(
        predict(short.as_ref(), &[Some("on time late")]),
        by_hand("on time")
    );
}

#[test]
fn what_cannot_be_done_is_told_when_the_file_is_read() {
    let of = |text: &str| loaded(text).unwrap_err().to_string();
    for (text, said) in [
        ("{}", "a vector for each token"),
        (r#"{"pooling": "max"}"#, "unknown variant `max`"),
        (r#"{"poling": "mean"}"#, "unknown field `poling`"),
        (r#"{"pooling": "mean", "max_tokens": 0}"#, "is 0"),
        (
            r#"{"pooling": "mean", "max_tokens": 1000000}"#,
            "tokens in a text",
        ),
    ] {
        assert!(of(text).contains(said), "{text}: {}", of(text));
    }
    let read = |network: &ModelProto| load(&network.encode_to_vec(), &LoadOptions::default());
    let broken = network(&[("headwater.tokenizer", "{}"), ("headwater.text", "{}")]);
    assert!(
        read(&broken)
            .unwrap_err()
            .to_string()
            .contains("headwater.tokenizer")
    );
    let json = tokenizer();
    let notes = [
        ("headwater.tokenizer", json.as_str()),
        ("headwater.text", r#"{"pooling":"mean"}"#),
    ];
    let mut other = network(&notes);
    other.graph.as_mut().unwrap().input[0].name = "words_in".into();
    other.graph.as_mut().unwrap().node[0].input[1] = "words_in".into();
    assert!(read(&other).unwrap_err().to_string().contains("`words_in`"));
}

#[test]
fn a_number_is_no_text() {
    let model = loaded(r#"{"pooling": "mean"}"#).unwrap();
    let input = &model.contract().inputs[0];
    let mut texts = Vec::new();
    let refused = input.encode(&headwater_schema::Value::Int(7), &mut texts);
    assert_eq!(refused.unwrap_err().code, "model-input");
    let long = headwater_schema::Value::string("x".repeat((64 << 10) + 1));
    assert_eq!(
        input.encode(&long, &mut texts).unwrap_err().code,
        "model-input"
    );
    let text: [Arc<str>; 1] = ["late".into()];
    for place in [-1.0, 0.5, 1.0, f64::INFINITY] {
        let row = [place];
        let rows = Rows::one(&row).unwrap().with_texts(&text);
        assert_eq!(
            model.predict(rows).unwrap_err().code,
            "model-input",
            "{place}"
        );
    }
}

proptest! {
    #[test]
    fn a_text_is_answered_alike_alone_and_in_any_batch(
        texts in proptest::collection::vec("[a-z]{0,3}( (late|on|time|so)){0,9}", 1..12),
    ) {
        let model = loaded(r#"{"pooling": "mean", "normalize": true}"#).unwrap();
        let given: Vec<_> = texts.iter().map(|t| Some(t.as_str())).collect();
        let alone = given.iter().flat_map(|text| predict(model.as_ref(), &[*text]));
        let bits = |numbers: Vec<f64>| numbers.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        prop_assert_eq!(bits(predict(model.as_ref(), &given)), bits(alone.collect()));
    }
}
