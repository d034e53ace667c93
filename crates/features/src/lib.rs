//! The feature repository: definitions and their versions, expressions, plans; the online store;
//! point-in-time evaluation over an entity's state.
//!
//! It doesn't tail the log (`stream` does) and knows nothing of HTTP.

mod built_in;
mod catalog;
mod chain;
mod compile;
mod default;
mod definition;
mod derive;
mod derived;
mod documents;
mod entity;
mod entity_request;
mod evaluate;
mod expression;
mod forms;
mod function;
mod label;
mod lineage;
mod meaning;
mod model;
mod plan;
mod prepare;
mod registry;
mod search;
mod set;
mod store;
mod window;

pub use built_in::{OUTCOME, PREDICTION, built_in_contract, is_built_in};
pub use catalog::{
    Catalog, CompiledFeature, CompiledSource, CompiledView, Entity, FeatureKind, FeatureRef,
    Resolved, VIEW_FEATURES_MAX,
};
pub use chain::{CHAIN_DEPTH_MAX, Upstream};
pub use definition::{API_VERSION, Definition, Storage, json_schemas, read as read_definition};
pub use documents::{DefinitionDocument, DefinitionKind, Documents, definition_hash};
pub use entity::{check_entity_names, entity_key, entity_key_for, entity_names, read_all_as_typed};
pub use entity_request::{EntityRequest, KeyValue, entity_request, key_value};
pub use evaluate::{ForwardPlan, LatestFeature, Picked, PlacedFact, Read, ReadPlan, Said};
pub use expression::{EXPRESSION_CHARACTERS_MAX, Expression};
pub use headwater_aggregate::{Outcome, Status};
pub use label::Label;
pub use lineage::{Direction, Edge, Lineage, Node, NodeKind, Walk};
pub use meaning::feature_meaning;
pub use model::{
    Arm, Caching, Constant, ConstantOutput, Fallback, Model, ModelInputs, OnChangedFeatures,
    OnFacts, Traffic, Webhook,
};
pub use plan::{Action, Affected, Cost, LogFacts, Plan, PlanItem, Replay, plan};
pub use prepare::{KeptRows, Keys, PreparedFacts, SourceRows, keep, prepare, prepare_rows};
pub use registry::{DefinitionVersion, Registry};
pub use search::{FOUND_MAX, Found, search};
pub use set::{ContextRow, FeatureSet, ON_DEMAND_MAX, OnDemand, Place, SET_FEATURES_MAX, SetInput};
#[cfg(feature = "disk")]
pub use store::EmbeddedFeatureStore;
pub use store::{FeatureStore, MemoryFeatureStore, StoreWrite, StoredState};
