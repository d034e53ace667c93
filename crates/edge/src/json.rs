//! The same calls in JSON, as `POST /v1/features` and `POST /v1/models/MODEL/predict` have it: for callers in other
//! languages.

use std::collections::BTreeMap;

use headwater_features::{ContextRow, EntityRequest, entity_request};
use headwater_schema::time::{format_timestamp, parse_timestamp};
use headwater_schema::{Blame, JsonValue, Micros, Problem};
use headwater_serve::Explanation;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::{Edge, NotBundled};

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// One object per row: entity name → key, or key column → value.
    entities: Vec<BTreeMap<String, Json>>,
    /// The rows' own fields, one object per row, as the feature set declares them.
    #[serde(default)]
    context: Vec<ContextRow>,
    /// RFC 3339, or microseconds since 1970; now by default.
    #[serde(default)]
    as_of: Option<Json>,
    /// Whether to tell what each input added, with predictions in JSON.
    #[serde(default)]
    explain: bool,
}

/// A question, read.
struct Asked {
    entities: Vec<EntityRequest>,
    context: Vec<ContextRow>,
    as_of: Option<Micros>,
    explain: bool,
}

impl Asked {
    fn read(text: &str) -> Result<Self, Problem> {
        let question: Question = serde_json::from_str(text).map_err(|e| {
            Problem::user("malformed-request", "the request isn't as it should be")
                .detail(e)
                .hint("write {\"entities\": [{\"plane\": \"N14228\"}], \"context\": [{…}], \"as_of\": \"2013-07-01T12:00:00Z\"}")
        })?;
        let entities = question.entities.iter().enumerate();
        let entities = entities.map(|(index, entity)| {
            entity_request(entity).map_err(|problem| {
                let field = problem.field.clone().unwrap_or_default();
                problem.field(format!("entities[{index}].{field}"))
            })
        });
        Ok(Self {
            entities: entities.collect::<Result<_, _>>()?,
            context: question.context,
            as_of: question.as_of.as_ref().map(moment).transpose()?,
            explain: question.explain,
        })
    }

    /// A question whose answer has no place for explanations.
    fn read_plain(text: &str) -> Result<Self, Problem> {
        let asked = Self::read(text)?;
        match asked.explain {
            false => Ok(asked),
            true => Err(
                Problem::user("malformed-request", "nothing is explained here")
                    .field("explain")
                    .hint("ask for predictions in JSON, or leave `explain` out"),
            ),
        }
    }
}

fn moment(json: &Json) -> Result<Micros, Problem> {
    let read = match json {
        Json::Number(number) => number
            .as_i64()
            .ok_or_else(|| "it is no whole number".into()),
        Json::String(text) => parse_timestamp(text, None),
        _ => Err("it is neither text nor a number".to_owned()),
    };
    read.map_err(|detail| {
        Problem::user("invalid-time", "`as_of` is no moment")
            .field("as_of")
            .detail(detail)
            .hint("write RFC 3339 with an offset, or microseconds since 1970")
    })
}

impl Edge {
    /// [`Edge::features`], asked and answered in JSON.
    pub fn features_json(&self, request: &str) -> Result<String, Problem> {
        let asked = Asked::read_plain(request)?;
        let read = self.features(&asked.entities, &asked.context, asked.as_of)?;
        let rows = read.rows.iter().map(|row| {
            let time = |time: Option<Micros>| time.map(format_timestamp);
            json!({
                "values": row.iter().map(|o| json!(JsonValue(&o.value))).collect::<Vec<_>>(),
                "statuses": row.iter().map(|o| o.status.as_str()).collect::<Vec<_>>(),
                "event_times": row.iter().map(|o| time(o.event_time)).collect::<Vec<_>>(),
            })
        });
        let mut answer = json!({
            "names": read.names.to_vec(),
            "rows": rows.collect::<Vec<_>>(),
        });
        self.add_cursor(&mut answer, read.as_of, &read.not_bundled);
        Ok(answer.to_string())
    }

    /// [`Edge::predict`], asked and answered in JSON.
    pub fn predict_json(&self, request: &str) -> Result<String, Problem> {
        let asked = Asked::read(request)?;
        let predicted = match asked.explain {
            true => self.explain(&asked.entities, &asked.context, asked.as_of)?,
            false => self.predict(&asked.entities, &asked.context, asked.as_of)?,
        };
        let outputs = predicted.outputs.iter().map(|row| {
            let named = row.iter().map(|(name, numbers)| {
                let said = match numbers.as_slice() {
                    [number] => json!(number),
                    several => json!(several),
                };
                (name.to_string(), said)
            });
            Json::Object(named.collect())
        });
        let mut answer = json!({
            "model": self.head.model,
            "version": self.head.version,
            "outputs": outputs.collect::<Vec<_>>(),
        });
        if !predicted.warnings.is_empty() {
            answer["warnings"] = json!(predicted.warnings);
        }
        if asked.explain {
            answer["explanations"] = explanations(&predicted.explanations);
        }
        self.add_cursor(&mut answer, predicted.as_of, &predicted.not_bundled);
        Ok(answer.to_string())
    }

    /// [`Edge::predict`], asked in JSON and answered in numbers: one row after another.
    pub fn predict_numbers(&self, request: &str) -> Result<Vec<f64>, Problem> {
        let asked = Asked::read_plain(request)?;
        let predicted = self.predict(&asked.entities, &asked.context, asked.as_of)?;
        Ok(predicted.numbers)
    }

    /// [`Edge::add_facts`], answered in JSON.
    pub fn add_facts_json(
        &self,
        contract: &str,
        rows: &str,
        revise: bool,
    ) -> Result<String, Problem> {
        let added = self.add_facts(contract, rows.as_bytes(), revise)?;
        let rejected = added.rejected.iter();
        let rejected =
            rejected.map(|r| json!({"row": r.row, "field": r.field, "reason": r.reason}));
        let answer = json!({
            "accepted": added.accepted,
            "duplicates": added.duplicates,
            "rejected": rejected.collect::<Vec<_>>(),
        });
        Ok(answer.to_string())
    }

    /// [`Edge::retract`] of a JSON array of ids, answered in JSON.
    pub fn retract_json(&self, contract: &str, fact_ids: &str) -> Result<String, Problem> {
        let ids: Vec<String> = serde_json::from_str(fact_ids).map_err(|e| {
            Problem::user("malformed-request", "the ids aren't a list of texts")
                .field("fact_ids")
                .detail(e)
                .hint("write [\"p1\", \"p2\"]")
        })?;
        let told = self.retract(contract, ids)?;
        Ok(json!({"retracted": told.retracted, "unknown": told.unknown}).to_string())
    }

    /// [`Edge::about`] in JSON.
    pub fn about_json(&self) -> String {
        let about = self.about();
        let outputs = about.outputs.iter();
        let outputs = outputs.map(|(name, width)| json!({"name": name, "width": width}));
        json!({
            "model": about.head.model,
            "version": about.head.version,
            "alias": about.head.alias,
            "feature_set": about.head.feature_set,
            "sequence": about.head.sequence.to_string(),
            "made_at": format_timestamp(about.head.made_at),
            "made_by": about.head.made_by,
            "inputs": about.inputs,
            "outputs": outputs.collect::<Vec<_>>(),
            "entities": about.entities,
            "local_facts": about.local_facts,
            "repairs": about.repairs,
        })
        .to_string()
    }

    fn add_cursor(&self, answer: &mut Json, as_of: Micros, not_bundled: &[NotBundled]) {
        answer["as_of"] = json!(format_timestamp(as_of));
        answer["sequence"] = json!(self.head.sequence.to_string());
        answer["local_facts"] = json!(self.local_facts());
        let told = not_bundled.iter();
        let told = told.map(|n| json!({"row": n.row, "entity": n.entity}));
        answer["not_bundled"] = told.collect();
    }
}

/// For each row, and each score of it, what the inputs added, and what the model says without any.
fn explanations(rows: &[Explanation]) -> Json {
    let of_row = |row: &Explanation| -> Json {
        let scores = row.scores.iter();
        scores
            .map(|(inputs, base)| {
                let inputs = inputs
                    .iter()
                    .map(|(name, added)| (name.to_string(), json!(added)));
                json!({"inputs": Json::Object(inputs.collect()), "base": base})
            })
            .collect()
    };
    rows.iter().map(of_row).collect()
}

/// A problem in JSON.
pub fn problem_json(problem: &Problem) -> String {
    json!({
        "code": problem.code,
        "title": problem.title,
        "detail": problem.detail,
        "hint": problem.hint,
        "field": problem.field,
        "blame": match problem.blame {
            Blame::User => "user",
            Blame::External => "external",
            Blame::Internal => "internal",
        },
        "retry": problem.retry,
    })
    .to_string()
}
