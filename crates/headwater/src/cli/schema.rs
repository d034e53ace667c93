//! `schema`: what editors and clients check files and calls against: JSON Schemas, OpenAPI, protobufs.

use std::path::PathBuf;

use clap::Args;
use headwater::Config;
use headwater_schema::Problem;
use serde_json::Value as Json;

use super::{Context, Failure};

#[derive(Args)]
pub struct SchemaArguments {
    /// The folder to write to.
    #[arg(long)]
    out: PathBuf,
}

/// Writes every schema.
pub fn run(context: &Context, arguments: &SchemaArguments) -> Result<(), Failure> {
    let unwritable = |e: headwater_env::FileError| {
        Problem::external("unwritable", "a schema can't be written").detail(e)
    };
    context
        .env
        .files
        .create_dir_all(&arguments.out)
        .map_err(unwritable)?;
    let mut files = headwater_features::json_schemas();
    let project: Json = schemars::schema_for!(Config).into();
    files.push(("project.schema.json".into(), project));
    files.push(("test.schema.json".into(), headwater::test_schema()));
    files.push(("openapi.json".into(), headwater_api::openapi()));
    for (name, schema) in &files {
        let path = arguments.out.join(name);
        context
            .env
            .files
            .write_atomic(&path, format!("{schema:#}\n").as_bytes())
            .map_err(unwritable)?;
        println!("{}", path.display());
    }
    let contract = arguments.out.join("contract.schema.json");
    let standard = headwater_schema::contract::ODCS_JSON_SCHEMA;
    context
        .env
        .files
        .write_atomic(&contract, standard.as_bytes())
        .map_err(unwritable)?;
    println!("{}", contract.display());
    for (name, text) in headwater_api::grpc::PROTOS {
        let path = arguments.out.join("proto").join(name);
        if let Some(folder) = path.parent() {
            let made = context.env.files.create_dir_all(folder);
            made.map_err(unwritable)?;
        }
        let written = context.env.files.write_atomic(&path, text.as_bytes());
        written.map_err(unwritable)?;
        println!("{}", path.display());
    }
    Ok(())
}
