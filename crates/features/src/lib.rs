//! The feature repository: definitions and their versions, expressions, plans; the online store;
//! point-in-time evaluation over an entity's state.
//!
//! It doesn't tail the log (`stream` does) and knows nothing of HTTP.

mod catalog;
mod compile;
mod default;
mod definition;
mod derive;
mod documents;
mod evaluate;
mod expression;
mod function;
mod lineage;
mod plan;
mod registry;
mod search;
mod store;
mod window;

pub use catalog::{
    Catalog, CompiledFeature, CompiledSource, CompiledView, Entity, FeatureKind, FeatureRef,
    FeatureSet, Resolved, SET_FEATURES_MAX, VIEW_FEATURES_MAX,
};
pub use definition::{API_VERSION, Definition, Storage, json_schemas, read as read_definition};
pub use documents::{DefinitionDocument, DefinitionKind, Documents, definition_hash};
pub use evaluate::{PreparedFacts, ReadPlan, prepare};
pub use expression::{EXPRESSION_CHARACTERS_MAX, Expression};
pub use lineage::{Direction, Edge, Lineage, Node, NodeKind, Walk};
pub use plan::{Action, Affected, Cost, LogFacts, Plan, PlanItem, Replay, plan};
pub use registry::{DefinitionVersion, Registry};
pub use search::{FOUND_MAX, Found, search};
pub use store::{EmbeddedFeatureStore, FeatureStore, MemoryFeatureStore, StoreWrite, StoredState};
