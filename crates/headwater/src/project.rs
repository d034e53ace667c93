//! A project's folder: its settings and definitions, read, checked and compiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_api::backend::DefinitionFile;
use headwater_env::Env;
use headwater_features::{Catalog, Documents};
use headwater_schema::Problem;
use headwater_schema::yaml::YamlDocument;

use crate::Config;
use crate::fixture::{FixtureTest, is_test};
use crate::models::too_many;

/// The file that makes a folder a project.
pub const PROJECT_FILE: &str = "headwater.yaml";
/// Files below one project.
pub const FILES_MAX: usize = 10_000;
/// Folders within folders.
pub const DEPTH_MAX: usize = 16;

/// A project as its files say.
#[derive(Debug, Clone)]
pub struct Project {
    pub folder: PathBuf,
    pub config: Config,
    pub catalog: Arc<Catalog>,
    /// The definitions as they are written.
    pub documents: Documents,
    /// The project's own tests of its definitions.
    pub tests: Vec<FixtureTest>,
}

impl Project {
    /// Reads, checks and compiles every definition below `folder`; all mistakes at once.
    pub fn load(env: &Env, folder: &Path) -> Result<Self, Vec<Problem>> {
        let config = Self::config(env, folder).map_err(|p| vec![p])?;
        let mut files = Vec::new();
        let data = folder.join(&config.spec.data_dir);
        find_files(env, folder, &data, 0, &mut files).map_err(|p| vec![p])?;
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for file in files {
            match read_documents(env, folder, &file) {
                Ok(found) => documents.extend(found),
                Err(problem) => problems.push(problem),
            }
        }
        let (tests, documents) = sort_documents(documents);
        let catalog = Catalog::compile(&documents);
        if let Ok(catalog) = &catalog {
            let (serving, webhooks) = (&config.spec.serving, &config.spec.webhooks);
            problems.extend(too_many(catalog, serving, webhooks));
        }
        let tests = match &catalog {
            Ok(catalog) => read_tests(&tests, catalog, &mut problems),
            // Tests of definitions that are wrong would only repeat what is wrong with them.
            Err(found) => {
                problems.extend(found.iter().cloned());
                Vec::new()
            }
        };
        match catalog {
            Ok(catalog) if problems.is_empty() => Ok(Self {
                folder: folder.to_owned(),
                config,
                catalog: Arc::new(catalog),
                documents: Documents::from_yaml(&documents),
                tests,
            }),
            _ => Err(problems),
        }
    }

    /// Every definition file below `folder`, with its text.
    pub fn files(env: &Env, folder: &Path) -> Result<Vec<DefinitionFile>, Problem> {
        let config = Self::config(env, folder)?;
        let mut files = Vec::new();
        let data = folder.join(&config.spec.data_dir);
        find_files(env, folder, &data, 0, &mut files)?;
        let read = |path: &PathBuf| {
            let (file, text) = read_text(env, folder, path)?;
            Ok(DefinitionFile { file, text })
        };
        files.iter().map(read).collect()
    }

    /// Reads the settings alone.
    pub fn config(env: &Env, folder: &Path) -> Result<Config, Problem> {
        let path = folder.join(PROJECT_FILE);
        if !env.files.exists(&path) {
            return Err(
                Problem::user("no-project", format!("{} is no project", folder.display()))
                    .detail(format!("it has no file {PROJECT_FILE}"))
                    .hint(
                        "make one with `headwater init`, or name another folder with `--project`",
                    ),
            );
        }
        let documents = read_documents(env, folder, &path)?;
        let is_project = |d: &&YamlDocument| {
            d.value
                .get("kind")
                .is_none_or(|kind| kind.as_str() == Some("Project"))
        };
        let document = documents.iter().find(is_project).ok_or_else(|| {
            Problem::user(
                "no-project",
                format!("{PROJECT_FILE} has no document of kind Project"),
            )
            .hint("begin it with `name: my-project`")
        })?;
        parse_config(document)
    }

    /// Where the project's data lies, unless `given` says otherwise.
    pub fn data_folder(&self, given: Option<&Path>) -> PathBuf {
        given.map_or_else(
            || self.folder.join(&self.config.spec.data_dir),
            Path::to_owned,
        )
    }
}

/// Reads, checks and compiles definitions that came as files' texts; all mistakes at once. Settings and
/// tests among them aren't looked at.
pub fn read_definitions(files: &[DefinitionFile]) -> Result<(Documents, Catalog), Vec<Problem>> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match YamlDocument::parse_all(&file.file, &file.text) {
            Ok(found) => documents.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (_, documents) = sort_documents(documents);
    let catalog = Catalog::compile(&documents)?;
    Ok((Documents::from_yaml(&documents), catalog))
}

/// The name of the project that files are of, where its settings are among them.
pub fn project_name(files: &[DefinitionFile]) -> Option<String> {
    let settings = files.iter().find(|f| f.file == PROJECT_FILE)?;
    let documents = YamlDocument::parse_all(&settings.file, &settings.text).ok()?;
    let name = documents.iter().find_map(|d| {
        let kind = d.value.get("kind").and_then(|kind| kind.as_str());
        let name = d.value.get("name").and_then(|name| name.as_str());
        name.filter(|_| kind.is_none_or(|kind| kind == "Project"))
    });
    name.map(str::to_owned)
}

/// Tests, and definitions; the project's settings are neither.
fn sort_documents(mut documents: Vec<YamlDocument>) -> (Vec<YamlDocument>, Vec<YamlDocument>) {
    documents.retain(|d| d.value.get("kind").and_then(|k| k.as_str()) != Some("Project"));
    documents.retain(|d| d.file != PROJECT_FILE || d.value.get("kind").is_some());
    documents.into_iter().partition(is_test)
}

/// Reads tests, noting what is wrong with them.
fn read_tests(
    documents: &[YamlDocument],
    catalog: &Catalog,
    problems: &mut Vec<Problem>,
) -> Vec<FixtureTest> {
    let mut tests: Vec<FixtureTest> = Vec::with_capacity(documents.len());
    for document in documents {
        match FixtureTest::read(document, catalog) {
            Ok(test) => match tests.iter().find(|t| t.name == test.name) {
                Some(_) => problems.push(
                    Problem::user("name-clash", format!("there are two tests `{}`", test.name))
                        .hint("rename one of them")
                        .at(test.location),
                ),
                None => tests.push(test),
            },
            Err(found) => problems.extend(found),
        }
    }
    tests
}

fn parse_config(document: &YamlDocument) -> Result<Config, Problem> {
    let config: Config = serde_path_to_error::deserialize(&document.value).map_err(|error| {
        let pointer: String = error
            .path()
            .iter()
            .map(|segment| format!("/{segment}"))
            .collect();
        Problem::user("invalid-project", "the project's settings are wrong")
            .field(error.path().to_string())
            .detail(error.inner())
            .hint("the JSON Schema of `headwater schema` names every setting")
            .at(document.locate(&pointer))
    })?;
    let wrong = |field: &str, pointer: &str, seen: &str, want: &str| {
        Err(
            Problem::user("invalid-project", format!("`{field}` is `{seen}`"))
                .field(field)
                .hint(format!("write `{field}: {want}`"))
                .at(document.locate(pointer)),
        )
    };
    if config.api_version != "headwater/v1" {
        return wrong(
            "apiVersion",
            "/apiVersion",
            &config.api_version,
            "headwater/v1",
        );
    }
    if config.kind != "Project" {
        return wrong("kind", "/kind", &config.kind, "Project");
    }
    crate::settings::check(&config).map_err(|problem| {
        let field = problem.field.as_deref().unwrap_or_default();
        let pointer = format!("/{}", field.replace('.', "/"));
        problem.at(document.locate(&pointer))
    })?;
    Ok(config)
}

fn read_documents(env: &Env, folder: &Path, path: &Path) -> Result<Vec<YamlDocument>, Problem> {
    let (name, text) = read_text(env, folder, path)?;
    YamlDocument::parse_all(&name, &text)
}

/// A file's name from the project's folder, and its text.
fn read_text(env: &Env, folder: &Path, path: &Path) -> Result<(String, String), Problem> {
    let name = path
        .strip_prefix(folder)
        .unwrap_or(path)
        .display()
        .to_string();
    let unreadable = |detail: String| {
        Problem::external("unreadable-file", format!("{name} can't be read")).detail(detail)
    };
    let bytes = env
        .files
        .read(path)
        .map_err(|e| unreadable(e.to_string()))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| unreadable(e.to_string()).hint("save the file as UTF-8"))?;
    Ok((name, text))
}

/// Every YAML file below `folder`, in the order of their names; hidden folders and the data folder aside.
fn find_files(
    env: &Env,
    folder: &Path,
    data: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), Problem> {
    let unreadable = |e: &dyn std::fmt::Display| {
        Problem::external(
            "unreadable-folder",
            format!("{} can't be read", folder.display()),
        )
        .detail(e)
    };
    let mut entries = env.files.list(folder).map_err(|e| unreadable(&e))?;
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        let hidden = name.is_none_or(|n| n.starts_with('.'));
        if hidden || path == data {
            continue;
        }
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if env.files.is_dir(&path) {
            if depth < DEPTH_MAX {
                find_files(env, &path, data, depth + 1, found)?;
            }
        } else if yaml {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            return Err(
                Problem::user("too-many-files", "the project has too many YAML files")
                    .detail(format!("more than {FILES_MAX}"))
                    .hint("is this the right folder?"),
            );
        }
    }
    Ok(())
}
