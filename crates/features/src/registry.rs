//! The registry: the documents in force, as they were applied, with the version of their format.

use headwater_schema::Problem;
use headwater_schema::yaml::YamlDocument;
use serde::{Deserialize, Serialize};

use crate::Catalog;

const FORMAT: u32 = 1;

/// The documents of a project, to be stored and compiled again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    format: u32,
    documents: Vec<StoredDocument>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredDocument {
    file: String,
    document: serde_json::Value,
}

impl Registry {
    pub fn from_documents(documents: &[YamlDocument]) -> Self {
        let stored = |document: &YamlDocument| StoredDocument {
            file: document.file.clone(),
            document: document.value.clone(),
        };
        Self {
            format: FORMAT,
            documents: documents.iter().map(stored).collect(),
        }
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Problem::internal("registry", "the registry can't be written").detail(e))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let registry: Self = serde_json::from_slice(bytes).map_err(|e| {
            Problem::external("registry-corrupt", "the registry can't be read")
                .detail(e)
                .hint("apply the project again")
        })?;
        if registry.format != FORMAT {
            return Err(
                Problem::external("registry-format", "the registry has another format")
                    .detail(format!(
                        "it is {}, this version reads {FORMAT}",
                        registry.format
                    ))
                    .hint(
                        "open the data with the version of Headwater that wrote it, or apply again",
                    ),
            );
        }
        Ok(registry)
    }

    /// Compiles the documents.
    pub fn compile(&self) -> Result<Catalog, Vec<Problem>> {
        let mut documents = Vec::with_capacity(self.documents.len());
        for stored in &self.documents {
            // JSON is YAML, so the stored document reads as it was.
            let text = stored.document.to_string();
            let parsed = YamlDocument::parse_all(&stored.file, &text).map_err(|p| vec![p])?;
            documents.extend(parsed);
        }
        Catalog::compile(&documents)
    }
}
