//! Definitions as they are written: entities, feature views and feature sets.

use std::collections::BTreeMap;

use headwater_schema::Problem;
use headwater_schema::contract::nearest;
use headwater_schema::yaml::YamlDocument;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::forms::{Forms, read_by_form};
use crate::model::ModelSpec;

/// The version that every definition names.
pub const API_VERSION: &str = "headwater/v1";

/// What every definition says of itself, around its `spec`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition<Spec> {
    /// Always `headwater/v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub kind: String,
    /// Letters, digits and underscores; unique among definitions of its kind.
    pub name: String,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    pub spec: Spec,
}

/// A thing that facts are about.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntitySpec {
    /// The columns that identify one.
    pub keys: Vec<KeySpec>,
}

/// A key column.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    pub name: String,
    #[serde(rename = "type")]
    pub key_type: KeyType,
    #[serde(default)]
    pub description: Option<String>,
}

/// The types a key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    String,
    #[serde(alias = "int64")]
    Integer,
    #[serde(alias = "boolean")]
    Bool,
    Date,
    Timestamp,
}

/// Features of one entity, computed from facts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewSpec {
    /// The entity's name.
    pub entity: String,
    pub sources: Vec<SourceSpec>,
    pub features: Vec<FeatureSpec>,
    /// For how long facts stay at hand, one by one. Default: widest window + allowed lateness + 7 days.
    #[serde(default)]
    pub retention: Option<String>,
    /// How late facts may be and still find the view's hot state.
    #[serde(default)]
    pub allowed_lateness: Option<String>,
    #[serde(default)]
    pub storage: Storage,
}

/// Where the states of a view live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Always in memory, besides the disk.
    Memory,
    /// On disk, with little memory.
    Disk,
    /// Hot ones in memory within the budget, the rest on disk.
    #[default]
    Tiered,
}

/// Facts that feed a view.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// The contract of the facts.
    #[serde(default)]
    pub contract: Option<String>,
    /// Another view, instead of a contract: each of its facts is a row with the view's features as they
    /// were at that fact.
    #[serde(default)]
    pub view: Option<String>,
    /// A SQL condition that picks facts before windows are formed.
    #[serde(default, rename = "where")]
    pub filter: Option<String>,
    /// Key column → the source's column, where the names differ.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// Name in the view → the source's column, where the names differ.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
}

/// One feature, or one per window.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    /// The aggregate function; without it (and without `expression`) the feature is the latest value of `of`.
    #[serde(default)]
    pub aggregate: Option<String>,
    /// A SQL expression over the view's other features.
    #[serde(default)]
    pub expression: Option<String>,
    /// What is aggregated: a column or a SQL expression over the fact.
    #[serde(default)]
    pub of: Option<String>,
    /// A SQL condition: which facts count inside the window.
    #[serde(default, rename = "where")]
    pub filter: Option<String>,
    /// The contract (or view upstream) whose facts count, where the view has several sources.
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default)]
    pub windows: Option<Vec<WindowSpec>>,
    /// How many values: of a list, of the most frequent, or of the categories with the largest results.
    #[serde(default)]
    pub n: Option<usize>,
    /// `true`: the sample form of variance, stddev, skew and kurtosis.
    #[serde(default)]
    pub sample: Option<bool>,
    #[serde(default)]
    pub nulls: Option<Nulls>,
    /// Distinct values counted exactly, values of a quantile kept one by one; more are estimated.
    #[serde(default)]
    pub exact_up_to: Option<usize>,
    /// The most categories, values of a histogram or keys of maps that are told apart.
    #[serde(default)]
    pub max_categories: Option<usize>,
    /// The value in place of null.
    #[serde(default)]
    pub default: Option<serde_json::Value>,
    /// How old the latest value may be.
    #[serde(default)]
    pub ttl: Option<String>,
    #[serde(default)]
    pub stale: Option<Stale>,
    /// A column or SQL expression whose values are the categories to group by; the feature is then a map.
    #[serde(default)]
    pub by: Option<String>,
    /// What `min_by` and `max_by` compare: a column or SQL expression.
    #[serde(default)]
    pub order_by: Option<String>,
    /// Between 0 and 1, or a list.
    #[serde(default)]
    pub quantile: Option<QuantileSpec>,
    /// After how long a fact weighs half.
    #[serde(default)]
    pub half_life: Option<String>,
    /// Aggregates the elements of lists, or maps key by key.
    #[serde(default)]
    pub unnest: Option<bool>,
    /// Aggregates lists of equal length place by place.
    #[serde(default)]
    pub element_wise: Option<bool>,
}

/// One quantile, or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum QuantileSpec {
    One(f64),
    Many(Vec<f64>),
}

/// Whether `first`, `last` and their lists count nulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nulls {
    Skip,
    Keep,
}

/// What a latest value older than its `ttl` becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stale {
    Null,
    Keep,
}

/// A window: a width such as `24h`, `lifetime`, or a map that names its mode.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum WindowSpec {
    Width(String),
    Mode(Box<WindowMap>),
}

/// A window with its mode: exactly one of the modes is named.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowMap {
    /// A width: facts after `t − width`, up to the cursor time t.
    #[serde(default)]
    pub exact: Option<String>,
    /// A width: facts from `t − width` on, up to t.
    #[serde(default)]
    pub range: Option<String>,
    /// The newest facts, this many.
    #[serde(default)]
    pub rows: Option<usize>,
    #[serde(default)]
    pub lifetime: Option<bool>,
    /// A width: facts from `t − width` on, rounded down to a `hop`, and before t.
    #[serde(default)]
    pub sawtooth: Option<String>,
    /// A width: the newest window of that width that has ended, each beginning where the last ends.
    #[serde(default)]
    pub tumbling: Option<String>,
    /// A width: the newest window of that width that has ended, one beginning `every` so often.
    #[serde(default)]
    pub hopping: Option<String>,
    /// The longest gap between two facts of one session; the newest session counts.
    #[serde(default)]
    pub session: Option<String>,
    /// What the start of a sawtooth window is rounded down to: 1d from 12d on, 1h from 12h on, else 5m.
    #[serde(default)]
    pub hop: Option<String>,
    /// How often a hopping window begins.
    #[serde(default)]
    pub every: Option<String>,
    /// Moves where tumbling, hopping and sawtooth windows begin: weeks from Monday have `align: 4d`.
    #[serde(default)]
    pub align: Option<String>,
    /// Tumbling and hopping: the window that the cursor lies in, so far.
    #[serde(default)]
    pub partial: Option<bool>,
    /// Moves the cursor back by this long.
    #[serde(default)]
    pub offset: Option<String>,
    /// Keeps the newest facts of the window, this many.
    #[serde(default)]
    pub limit: Option<usize>,
    /// The feature's whole name.
    #[serde(default, rename = "as")]
    pub name: Option<String>,
}

/// Features by name, to be read together.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSpec {
    /// Full names (`view.feature`); `*` and `?` match.
    pub features: Vec<String>,
    /// Fields that a request brings itself.
    #[serde(default)]
    pub context: Vec<ContextSpec>,
    /// Features that are worked out when the set is read.
    #[serde(default)]
    pub on_demand: Vec<OnDemandSpec>,
}

/// A field that a request brings itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextSpec {
    pub name: String,
    #[serde(rename = "type")]
    pub field_type: ContextType,
    #[serde(default)]
    pub description: Option<String>,
}

/// The types that a request's own fields may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContextType {
    String,
    #[serde(alias = "int64")]
    Integer,
    #[serde(alias = "float64")]
    Number,
    #[serde(alias = "boolean")]
    Bool,
    Date,
    Timestamp,
}

/// A feature that is worked out when its set is read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnDemandSpec {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    /// A SQL expression over the set's features, the context, and other on-demand features. A name
    /// that several have is written `view.name`, `context.name` or `set.name`.
    pub expression: String,
    /// The value in place of null.
    #[serde(default)]
    pub default: Option<serde_json::Value>,
}

/// What became of a thing within a horizon: the outcome column of a training set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelSpec {
    /// The contract of the facts that tell the outcome.
    pub contract: String,
    /// Which of them are about a row.
    #[serde(rename = "match")]
    pub matching: MatchSpec,
    /// A SQL condition: which of them tell it. Default: all.
    #[serde(default)]
    pub condition: Option<String>,
    /// How long after a row's time they count; the label is final then.
    pub horizon: String,
    /// What they say of it: a column or a SQL expression over the fact. Default: `true`.
    #[serde(default)]
    pub value: Option<String>,
    /// What is made of several: `first` by default.
    #[serde(default)]
    pub aggregate: Option<String>,
    /// The label where no such fact came. Default: what the aggregate says of none, which is null but for counts.
    #[serde(default)]
    pub otherwise: Option<serde_json::Value>,
    /// `true`: before the horizon the label is what is known so far, and not null.
    #[serde(default)]
    pub early_negative: bool,
}

/// How facts find their rows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MatchSpec {
    /// By an entity, whose keys are columns of the contract and of the rows.
    Entity(String),
    /// By columns that both have.
    Columns(Vec<String>),
    /// By columns: the contract's → the rows'.
    Renamed(BTreeMap<String, String>),
}

read_by_form!(QuantileSpec, WindowSpec, MatchSpec);

impl Forms for QuantileSpec {
    const EXPECTED: &'static str = "a number between 0 and 1, or a list of them";
    type List = Vec<f64>;
    type Map = IgnoredAny;

    fn of_number(number: f64) -> Option<Self> {
        Some(Self::One(number))
    }

    fn of_list(list: Vec<f64>) -> Option<Self> {
        Some(Self::Many(list))
    }
}

impl Forms for WindowSpec {
    const EXPECTED: &'static str =
        "a width as in `24h`, `lifetime`, or a map that names its mode as in `{rows: 3}`";
    type List = IgnoredAny;
    type Map = WindowMap;

    fn of_text(text: &str) -> Option<Self> {
        Some(Self::Width(text.to_owned()))
    }

    fn of_map(map: WindowMap) -> Option<Self> {
        Some(Self::Mode(Box::new(map)))
    }
}

impl Forms for MatchSpec {
    const EXPECTED: &'static str =
        "an entity, a list of columns, or a map of the contract's columns to those of the rows";
    type List = Vec<String>;
    type Map = BTreeMap<String, String>;

    fn of_text(text: &str) -> Option<Self> {
        Some(Self::Entity(text.to_owned()))
    }

    fn of_list(list: Vec<String>) -> Option<Self> {
        Some(Self::Columns(list))
    }

    fn of_map(map: BTreeMap<String, String>) -> Option<Self> {
        Some(Self::Renamed(map))
    }
}

/// Reads a document as a definition.
pub fn read<Spec: DeserializeOwned>(document: &YamlDocument) -> Result<Definition<Spec>, Problem> {
    let definition: Definition<Spec> =
        serde_path_to_error::deserialize(&document.value).map_err(|error| {
            let pointer = pointer_of(error.path());
            let said = error.inner().to_string();
            let hint = meant(&said).unwrap_or_else(|| "`headwater schema --out DIR` writes JSON Schemas that editors check files against".to_owned());
            Problem::user("invalid-definition", "the definition is wrong")
                .field(error.path().to_string())
                .detail(said)
                .hint(hint)
                .at(document.locate(&pointer))
        })?;
    if definition.api_version != API_VERSION {
        return Err(
            Problem::user("invalid-definition", "the definition has another version")
                .field("apiVersion")
                .detail(format!("it is `{}`", definition.api_version))
                .hint(format!("write `apiVersion: {API_VERSION}`"))
                .at(document.locate("/apiVersion")),
        );
    }
    check_name(&definition.name).map_err(|p| p.field("name").at(document.locate("/name")))?;
    Ok(definition)
}

/// What was probably meant by a word that serde doesn't expect; it says which it does.
fn meant(said: &str) -> Option<String> {
    let unknown = ["unknown field", "unknown variant"];
    if !unknown.iter().any(|words| said.starts_with(words)) {
        return None;
    }
    let mut quoted = said.split('`').skip(1).step_by(2);
    let near = nearest(quoted.next()?, quoted)?;
    Some(format!("did you mean `{near}`?"))
}

/// Names of definitions and features: they stand in full names, file names and expressions.
pub fn check_name(name: &str) -> Result<(), Problem> {
    const CHARACTERS_MAX: usize = 128;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.len() > CHARACTERS_MAX || !name.chars().all(plain) {
        return Err(
            Problem::user("invalid-name", format!("`{name}` is no name"))
                .hint("use letters, digits and underscores, at most 128"),
        );
    }
    Ok(())
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{key}"),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// The JSON Schemas of all kinds, by file name.
pub fn json_schemas() -> Vec<(String, serde_json::Value)> {
    let schema =
        |name: &str, schema: schemars::Schema| (format!("{name}.schema.json"), schema.into());
    vec![
        schema("entity", schemars::schema_for!(Definition<EntitySpec>)),
        schema("feature-view", schemars::schema_for!(Definition<ViewSpec>)),
        schema("feature-set", schemars::schema_for!(Definition<SetSpec>)),
        schema("label", schemars::schema_for!(Definition<LabelSpec>)),
        schema("model", schemars::schema_for!(Definition<ModelSpec>)),
    ]
}
