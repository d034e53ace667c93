//! `plan` and `apply`: what changes, and putting it in force; in the data folder, or on a running server.

use std::time::Duration;

use clap::Args;
use headwater::{Project, apply_project_on, plan_project};
use headwater_api::AuditEvent;
use headwater_api::backend::DefinitionsRequest;
use headwater_features::Plan;
use headwater_schema::Problem;
use serde_json::{Value as Json, json};

use super::remote::Remote;
use super::{Context, Failure, print};

/// How often a server is asked whether its views are filled.
const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct ApplyArguments {
    /// Refuse unless the registry is at this version, as `registry list --json` says it: nobody has
    /// applied anything since.
    #[arg(long)]
    if_version: Option<u64>,
    /// With `--server`: return once every view has been filled.
    #[arg(long)]
    wait: bool,
}

/// Shows what `apply` would change; fails where it would refuse.
pub fn plan(context: &Context) -> Result<(), Failure> {
    let project = context.project()?;
    if let Some(remote) = context.remote()? {
        let reply = send(context, &remote, "plan", None)?;
        return show(context, &reply, &plan_of(&reply)?);
    }
    let folder = project.data_folder(context.data.as_deref());
    let plan = plan_project(&context.env, &project, &folder)?;
    show(context, &json!(plan), &plan)?;
    if plan.problems.is_empty() {
        Ok(())
    } else {
        Err(plan.problems.into())
    }
}

/// What `apply` would change on a server.
pub fn plan_on(context: &Context, remote: &Remote) -> Result<Plan, Failure> {
    Ok(plan_of(&send(context, remote, "plan", None)?)?)
}

/// Puts the definitions in force.
pub fn apply(context: &Context, arguments: &ApplyArguments) -> Result<(), Failure> {
    let project = context.project()?;
    match context.remote()? {
        Some(remote) => apply_remote(context, arguments, &remote),
        None => apply_here(context, arguments, &project),
    }
}

fn apply_here(
    context: &Context,
    arguments: &ApplyArguments,
    project: &Project,
) -> Result<(), Failure> {
    let folder = project.data_folder(context.data.as_deref());
    let applied = apply_project_on(&context.env, project, &folder, arguments.if_version);
    let planned = applied.as_ref().map(|plan| json!(plan));
    let told = planned.as_ref().map_err(|problems| problems.as_slice());
    let event = AuditEvent::applied(super::ACTOR, &project.config.name, told);
    let noted = context.audit(&project.config).append(&event);
    let plan = applied?;
    noted?;
    show(context, &json!(plan), &plan)?;
    if !context.json && !plan.is_empty() {
        println!("Applied.");
    }
    Ok(())
}

fn apply_remote(
    context: &Context,
    arguments: &ApplyArguments,
    remote: &Remote,
) -> Result<(), Failure> {
    let reply = send(context, remote, "apply", arguments.if_version)?;
    let plan = plan_of(&reply)?;
    if arguments.wait {
        while !filling(&remote.get("/v1/registry/views", &[])?).is_empty() {
            std::thread::park_timeout(ASK_EVERY);
        }
    }
    show(context, &reply, &plan)?;
    if context.json || plan.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = match arguments.wait {
        true => Vec::new(),
        false => reply["filling"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect(),
    };
    match names.is_empty() {
        true => println!("Applied."),
        false => println!(
            "Applied. Being filled, BACKFILLING until then: {}.",
            names.join(", ")
        ),
    }
    Ok(())
}

/// The views that are still being filled.
fn filling(views: &Json) -> Vec<&str> {
    let views = views.as_array().into_iter().flatten();
    views
        .filter(|v| v["status"] == "backfilling")
        .filter_map(|v| v["name"].as_str())
        .collect()
}

/// Sends the project's files to a server.
fn send(
    context: &Context,
    remote: &Remote,
    verb: &str,
    if_version: Option<u64>,
) -> Result<Json, Failure> {
    let request = DefinitionsRequest {
        files: Project::files(&context.env, &context.folder)?,
        if_version,
    };
    let body = json!(request).to_string();
    let path = format!("/v1/registry/{verb}");
    Ok(remote.post_all(&path, "application/json", body.as_bytes())?)
}

fn plan_of(reply: &Json) -> Result<Plan, Problem> {
    serde_json::from_value(reply.clone()).map_err(|e| {
        Problem::external("unreadable-reply", "the server's plan can't be read")
            .detail(e)
            .hint("it may be another version of Headwater")
    })
}

fn show(context: &Context, reply: &Json, plan: &Plan) -> Result<(), Failure> {
    if context.json {
        print::json(reply);
    } else {
        print!("{plan}");
    }
    Ok(())
}
