//! How a model's requests are shared out among aliases, as it is declared.

use std::sync::Arc;

use headwater_schema::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::{Entity, unknown};
use crate::set::FeatureSet;

/// Arms of one model beside `live`.
pub const ARMS_MAX: usize = 16;
/// Shadows of one model.
pub const SHADOWS_MAX: usize = 4;
/// What answers where no arm does.
const LIVE: &str = "live";

/// Which aliases answer, and which are asked beside them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficSpec {
    /// Aliases that answer a share of the rows each; `live` answers the rest.
    pub arms: Vec<ArmSpec>,
    /// The entity whose rows always fall to the same arm; by default each request falls to one by itself.
    pub by: Option<String>,
    /// What the sharing out is called: another name shares entities out anew. Default: the model's name.
    pub experiment: Option<String>,
    /// Aliases that are asked too, after the answer is given: what they say is only kept as facts.
    pub shadow: Vec<String>,
}

/// An alias and its share.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmSpec {
    pub alias: String,
    /// Between 0 and 1.
    pub share: f64,
}

/// How rows are shared out.
#[derive(Debug, Clone)]
pub struct Traffic {
    pub experiment: Arc<str>,
    pub by: Option<Arc<Entity>>,
    /// In the order of their shares from 0 on.
    pub arms: Vec<Arm>,
    pub shadows: Vec<Arc<str>>,
}

/// An alias and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    pub alias: Arc<str>,
    pub share: f64,
}

pub(super) fn read_traffic(
    set: &FeatureSet,
    model: &str,
    spec: &TrafficSpec,
    at: &dyn Fn(Problem, &str) -> Problem,
) -> Result<Traffic, Problem> {
    let wrong = |title: String, key: &str| {
        let problem = Problem::user("invalid-definition", title);
        at(problem, &format!("traffic/{key}"))
    };
    for (what, count, most) in [
        ("arms", spec.arms.len(), ARMS_MAX),
        ("shadow", spec.shadow.len(), SHADOWS_MAX),
    ] {
        if count > most {
            let problem = Problem::user("limit", format!("more than {most} in `{what}`"));
            return Err(at(problem, &format!("traffic/{what}")));
        }
    }
    let mut left = 1.0;
    for (index, arm) in spec.arms.iter().enumerate() {
        let key = format!("arms/{index}");
        let before = &spec.arms[..index];
        if arm.alias == LIVE || before.iter().any(|b| b.alias == arm.alias) {
            let title = format!("`{}` has a share already", arm.alias);
            return Err(wrong(title, &key).hint("`live` has what the others leave"));
        }
        left -= arm.share;
        // Shares as people write them needn't sum to 1 to the last bit.
        if !(0.0..=1.0).contains(&arm.share) || left < -1e-9 {
            let title = "the shares are no parts of one whole".to_owned();
            return Err(
                wrong(title, &key).hint("write numbers between 0 and 1 whose sum is 1 at most")
            );
        }
    }
    let by = spec.by.as_ref().map(|name| {
        let entities = || set.features.iter().map(|f| &f.view.entity);
        entities()
            .find(|e| *e.name == *name.as_str())
            .cloned()
            .ok_or_else(|| {
                let names = entities().map(|e| e.name.as_ref());
                at(
                    unknown("entity", "entity of the set", name, names),
                    "traffic/by",
                )
            })
    });
    Ok(Traffic {
        experiment: spec.experiment.as_deref().unwrap_or(model).into(),
        by: by.transpose()?,
        arms: spec
            .arms
            .iter()
            .map(|arm| Arm {
                alias: arm.alias.as_str().into(),
                share: arm.share,
            })
            .collect(),
        shadows: spec
            .shadow
            .iter()
            .map(|alias| alias.as_str().into())
            .collect(),
    })
}
