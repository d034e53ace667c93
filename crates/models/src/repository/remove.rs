//! Versions that are let go.

use std::sync::PoisonError;

use headwater_schema::Problem;

use super::{ModelRecord, ModelRepository};

impl ModelRepository {
    /// Lets go of a version that no alias points at, and of its file unless another version has the same. Aliases forget
    /// that they pointed at it.
    pub fn remove(&self, model: &str, version: &str) -> Result<ModelRecord, Problem> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = String::new();
        let record = self.change_alone(model, |record, _| {
            let version = record.find(version)?.clone();
            record.refuse_pointed_at(&version.version)?;
            record.forget(&version.version);
            file = version.sha256;
            Ok(())
        })?;
        // The record went first: a file without a version harms nobody.
        let path = self.folder.join("files").join(&file);
        if !self.names_file(&file)? && self.env.files.exists(&path) {
            self.env.files.remove_file(&path).map_err(|e| {
                Problem::external(
                    "model-file",
                    "the file of a removed version can't be removed",
                )
                .detail(e)
                .hint("the version itself is gone; remove the file by hand")
            })?;
        }
        Ok(record)
    }

    /// Whether a version of any model has the file.
    fn names_file(&self, sha256: &str) -> Result<bool, Problem> {
        let listed = self.env.files.list(&self.folder);
        let listed = listed.map_err(|e| {
            Problem::external("model-record", "the models' records can't be listed").detail(e)
        })?;
        for path in listed {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(model) = name.and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let record = self.record(model)?;
            if record.versions.iter().any(|v| v.sha256 == sha256) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ModelRecord {
    fn refuse_pointed_at(&self, version: &str) -> Result<(), Problem> {
        let pointing = self.aliases.iter().filter(|(_, a)| a.version == version);
        let pointing: Vec<&str> = pointing.map(|(alias, _)| alias.as_str()).collect();
        if pointing.is_empty() {
            return Ok(());
        }
        let title = format!("the version `{version}` is in use");
        Err(Problem::user("version-in-use", title)
            .detail(format!("aliases point at it: {}", pointing.join(", ")))
            .hint("let them point at another one first: `headwater models promote`"))
    }

    /// Takes a version away, and out of what aliases remember: none remembers the same twice in a row, nor at the end
    /// where it points now.
    fn forget(&mut self, version: &str) {
        self.versions.retain(|v| v.version != version);
        for points in self.aliases.values_mut() {
            points.before.retain(|before| before != version);
            points.before.dedup();
            if points.before.last() == Some(&points.version) {
                points.before.pop();
            }
        }
    }
}
