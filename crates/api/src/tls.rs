//! TLS: a certificate and its key, which can be changed while connections are open.

use std::sync::{Arc, PoisonError, RwLock};

use headwater_schema::Problem;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate that new connections are shown.
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// From a chain of certificates and a private key, both in PEM.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Problem> {
        Ok(Self {
            config: RwLock::new(read(certificates, key)?),
        })
    }

    /// Shows another certificate from now on; connections that are open keep theirs.
    pub fn replace(&self, certificates: &[u8], key: &[u8]) -> Result<(), Problem> {
        let config = read(certificates, key)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        config.clone().into()
    }
}

fn read(certificates: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, Problem> {
    let wrong = |title: &str, detail: &dyn std::fmt::Display| {
        Problem::user("invalid-certificate", title)
            .detail(detail)
            .hint("`tls.certificate_file` holds the chain in PEM, the server's own first; `tls.key_file` its private key")
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let chain = chain.map_err(|e| wrong("the certificate can't be read", &e))?;
    if chain.is_empty() {
        return Err(wrong(
            "the certificate can't be read",
            &"there is none in the file",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(key);
    let key = key.map_err(|e| wrong("the certificate's key can't be read", &e))?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Problem::internal("tls", "TLS can't be set up").detail(e))?
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let mut config = config.map_err(|e| wrong("the certificate and its key don't fit", &e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
