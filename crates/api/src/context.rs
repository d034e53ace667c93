//! What a request brings itself, as clients of Feast and Chronon send it: among its keys.

use std::sync::Arc;

use headwater_schema::Problem;

use crate::backend::{Names, ReadShape};
use crate::server::Shared;

/// What a read asks for besides keys. Features in a list bring nothing with them.
pub(crate) fn asked(shared: &Shared, names: &Names) -> Result<Arc<ReadShape>, Problem> {
    match names {
        Names::Set(_) => shared.backend.shape(names),
        Names::List(_) => Ok(Arc::default()),
    }
}

impl ReadShape {
    /// Whether the set declares a field of its context by this name.
    pub(crate) fn has_context(&self, name: &str) -> bool {
        self.context.iter().any(|field| *field.name == *name)
    }

    /// Whether what comes under this name may be a key. A field of the context is one only where it is named as a
    /// key column: an entity that happens to have its name isn't meant.
    pub(crate) fn may_be_key(&self, name: &str) -> bool {
        let keys = || self.entities.iter().flat_map(|entity| &entity.keys);
        !self.has_context(name) || keys().any(|key| *key.name == *name)
    }
}
