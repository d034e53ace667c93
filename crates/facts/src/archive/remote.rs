//! An archive in an object store: S3, Google Cloud Storage, Azure, and what speaks as they do.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use headwater_schema::Problem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, parse_url_opts};
use tokio::runtime::Runtime;
use url::Url;

use super::store::{ArchiveStore, failed};

/// How long one attempt of a call may take, unless the options say otherwise; the store tries ten
/// times within three minutes.
const CALL: (&str, &str) = ("timeout", "60s");
const CONNECT: (&str, &str) = ("connect_timeout", "5s");

/// Objects below a prefix of an object store.
pub struct RemoteStore {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    runtime: Runtime,
}

impl RemoteStore {
    /// The store at `url`. `options` are object_store's own names, as `aws_region`; those that come
    /// later win. They are never shown.
    pub fn open(url: &str, options: Vec<(String, String)>) -> Result<Self, Problem> {
        let wrong = |detail: String| {
            Problem::user("invalid-archive", "the archive's URL or options are wrong")
                .field("archive")
                .detail(detail)
                .hint("a URL is as `file:///srv/facts`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`")
        };
        let parsed = Url::parse(url).map_err(|e| wrong(format!("`{url}`: {e}")))?;
        if parsed.password().is_some() {
            return Err(wrong("a URL may not hold a password".into()));
        }
        let own = [CALL, CONNECT].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = own.into_iter().chain(options);
        let (store, prefix) = parse_url_opts(&parsed, options).map_err(|e| wrong(e.to_string()))?;
        Self::over(Arc::from(store), prefix, url)
    }

    /// Any store of objects.
    pub fn over(store: Arc<dyn ObjectStore>, prefix: Path, url: &str) -> Result<Self, Problem> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("headwater-archive-io")
            .enable_all()
            .build()
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Self {
            store,
            prefix,
            url: url.to_owned(),
            runtime,
        })
    }

    fn path(&self, path: &str) -> Result<Path, Problem> {
        let whole = match self.prefix.as_ref() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        };
        Path::parse(whole).map_err(|e| self.failed(path, e))
    }

    fn failed(&self, path: &str, error: impl std::fmt::Display) -> Problem {
        failed(&self.url, path, error)
    }
}

impl ArchiveStore for RemoteStore {
    fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem> {
        let place = self.path(path)?;
        let put = self.store.put(&place, bytes.into());
        let done = self.runtime.block_on(put);
        done.map(drop).map_err(|e| self.failed(path, e))
    }

    fn put_new(&self, path: &str, bytes: Vec<u8>) -> Result<bool, Problem> {
        let place = self.path(path)?;
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let put = self.store.put_opts(&place, bytes.into(), options);
        match self.runtime.block_on(put) {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, Problem> {
        let place = self.path(path)?;
        let get = async { self.store.get(&place).await?.bytes().await };
        match self.runtime.block_on(get) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Problem> {
        let place = self.path(path)?;
        let get = self.store.get_range(&place, range);
        self.runtime.block_on(get).map_err(|e| self.failed(path, e))
    }

    fn delete(&self, path: &str) -> Result<(), Problem> {
        let place = self.path(path)?;
        match self.runtime.block_on(self.store.delete(&place)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    fn objects(&self) -> Result<Arc<dyn ObjectStore>, Problem> {
        let prefixed =
            object_store::prefix::PrefixStore::new(self.store.clone(), self.prefix.clone());
        Ok(Arc::new(prefixed))
    }

    fn url(&self) -> String {
        self.url.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_below_a_prefix_are_put_once_read_in_part_and_removed() {
        let objects: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let over = |prefix: &str| {
            let prefix = Path::parse(prefix).expect("a prefix");
            RemoteStore::over(objects.clone(), prefix, "memory:///").expect("opens")
        };
        let (store, other) = (over("a/b"), over(""));
        let path = "contract=a%20b/day=1970-01-01/1.parquet";
        assert!(store.get(path).expect("reads").is_none());
        assert!(store.put_new(path, b"first".to_vec()).expect("writes"));
        assert!(!store.put_new(path, b"other".to_vec()).expect("refuses"));
        assert_eq!(store.get(path).expect("reads").expect("is there"), "first");
        store.put(path, b"second".to_vec()).expect("writes over it");
        assert_eq!(store.get_range(path, 1..4).expect("reads"), "eco");
        let whole = other.get(&format!("a/b/{path}")).expect("reads");
        assert_eq!(whole.expect("is there"), "second");
        store.delete(path).expect("removes");
        store.delete(path).expect("nothing to remove");
        assert!(store.get(path).expect("reads").is_none());
    }
}
