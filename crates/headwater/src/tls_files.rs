//! The files of a certificate and its key: read, and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use headwater_api::Tls;
use headwater_env::Env;
use headwater_schema::Problem;

use crate::{Config, TlsSettings};

/// A certificate and its key on the disk.
pub struct TlsFiles {
    env: Env,
    certificate: PathBuf,
    key: PathBuf,
    /// What was read last.
    last: Mutex<Pem>,
}

/// A chain of certificates and a private key, as the files have them.
#[derive(Default, PartialEq, Eq)]
struct Pem {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

impl TlsFiles {
    /// The files that a project names; none where it has no TLS.
    pub fn new(env: Env, config: &Config, project: &Path) -> Option<Self> {
        let TlsSettings {
            certificate_file,
            key_file,
        } = config.spec.tls.as_ref()?;
        Some(Self {
            env,
            certificate: project.join(certificate_file),
            key: project.join(key_file),
            last: Mutex::default(),
        })
    }

    fn read(&self) -> Result<Pem, Problem> {
        let read = |field: &str, path: &Path| {
            self.env.files.read(path).map_err(|e| {
                Problem::user("tls-files", format!("{} can't be read", path.display()))
                    .field(field)
                    .detail(e)
                    .hint("`tls.certificate_file` and `tls.key_file` are paths from the project's folder")
            })
        };
        Ok(Pem {
            certificates: read("spec.tls.certificate_file", &self.certificate)?,
            key: read("spec.tls.key_file", &self.key)?,
        })
    }

    /// TLS with what the files hold now.
    pub fn load(&self) -> Result<Tls, Problem> {
        let pem = self.read()?;
        let tls = Tls::from_pem(&pem.certificates, &pem.key)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = pem;
        Ok(tls)
    }

    /// Puts changed files in force; whether there were any. Files that don't fit each other, as while
    /// they are being replaced, leave everything as it was.
    pub fn reload(&self, tls: &Tls) -> Result<bool, Problem> {
        let pem = self.read()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if pem == *last {
            return Ok(false);
        }
        tls.replace(&pem.certificates, &pem.key)?;
        *last = pem;
        Ok(true)
    }
}
