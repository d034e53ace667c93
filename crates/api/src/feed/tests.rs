//! Feeds over a backend that answers when it is told to, and refuses when it is told to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_schema::Contract;

use super::*;
use crate::backend::{
    DefinitionsRequest, FactRow, FactsQuery, FeaturesReply, FeaturesRequest, IngestDone, Measure,
    MendReply, Mending, QuarantineRow, RegistryQuery, RetractDone, WriteTarget,
};

#[derive(Default)]
struct Slow {
    waiting: Mutex<VecDeque<(Vec<u8>, IngestDone)>>,
    /// Batches still to be refused as busy.
    busy: AtomicUsize,
}

impl Slow {
    fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    /// Answers the batch that has waited longest; what it was.
    fn answer(&self, reply: Result<IngestReply, Problem>) -> Vec<u8> {
        let (body, done) = self.waiting.lock().unwrap().pop_front().unwrap();
        done(reply);
        body
    }
}

fn nothing<T>() -> Result<T, Problem> {
    Err(Problem::user("not-found", "only facts are taken here"))
}

impl Backend for Slow {
    fn submit(&self, _: &str, _: BodyFormat, body: &[u8], _: IngestOptions, done: IngestDone) {
        let refused = |n: usize| n.checked_sub(1);
        if self
            .busy
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, refused)
            .is_ok()
        {
            return done(Err(Problem::external("busy", "too much waits").retryable()));
        }
        self.waiting
            .lock()
            .unwrap()
            .push_back((body.to_vec(), done));
    }

    fn retract(&self, _: &str, _: Vec<String>, done: RetractDone) {
        done(nothing());
    }

    fn features(&self, _: &FeaturesRequest) -> Result<FeaturesReply, Problem> {
        nothing()
    }

    fn training_set(
        &self,
        _: &crate::backend::TrainingSetRequest,
        _: BodyFormat,
        _: &mut headwater_batch::Pieces<'_>,
        _: &headwater_batch::Stop,
        _: &mut (dyn std::io::Write + Send),
    ) -> Result<(), Problem> {
        nothing()
    }

    fn score(
        &self,
        _: &crate::backend::ScoreRequest,
        _: BodyFormat,
        _: &mut headwater_batch::Pieces<'_>,
        _: &headwater_batch::Stop,
        _: &mut (dyn std::io::Write + Send),
    ) -> Result<(), Problem> {
        nothing()
    }

    fn query(
        &self,
        _: &crate::backend::QueryRequest,
    ) -> Result<headwater_batch::sql::Answer, Problem> {
        nothing()
    }

    fn facts(&self, _: &FactsQuery) -> Result<Vec<FactRow>, Problem> {
        nothing()
    }

    fn quarantine(&self, _: &str, _: bool, _: usize) -> Result<Vec<QuarantineRow>, Problem> {
        nothing()
    }

    fn mend(&self, _: &str, _: Mending, _: bool) -> Result<MendReply, Problem> {
        nothing()
    }

    fn contract(&self, _: &str) -> Result<Arc<Contract>, Problem> {
        nothing()
    }

    fn shape(&self, _: &crate::backend::Names) -> Result<Arc<crate::backend::ReadShape>, Problem> {
        nothing()
    }

    fn view_features(&self, _: &str) -> Result<Vec<String>, Problem> {
        nothing()
    }

    fn write_target(&self, _: &str) -> Result<WriteTarget, Problem> {
        nothing()
    }

    fn registry(&self, _: &RegistryQuery) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn project(&self) -> &str {
        "shop"
    }

    fn plan(&self, _: &DefinitionsRequest) -> Result<serde_json::Value, Vec<Problem>> {
        nothing().map_err(|p| vec![p])
    }

    fn apply(&self, _: &DefinitionsRequest) -> Result<serde_json::Value, Vec<Problem>> {
        nothing().map_err(|p| vec![p])
    }

    fn archive(&self) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn run_archive(&self) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn predict(
        &self,
        _: crate::backend::PredictRequest,
        _: crate::backend::PredictDone,
    ) -> Result<Arc<dyn crate::backend::Pending>, Problem> {
        nothing()
    }

    fn models(&self, _: Option<&str>) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn signature(&self, _: &str, _: Option<&str>) -> Result<crate::backend::Signature, Problem> {
        nothing()
    }

    fn model_index(&self) -> Vec<crate::backend::IndexedVersion> {
        Vec::new()
    }

    fn load_model(&self, _: &str) -> Result<(), Problem> {
        nothing()
    }

    fn unload_model(&self, _: &str) -> Result<(), Problem> {
        nothing()
    }

    fn bundle(&self, _: &crate::backend::BundleRequest) -> Result<Vec<u8>, Problem> {
        nothing()
    }

    fn predictions(
        &self,
        _: &str,
        _: headwater_schema::Sequence,
        _: usize,
    ) -> Result<crate::PredictionPage, Problem> {
        nothing()
    }

    fn applied(&self) -> tokio::sync::watch::Receiver<headwater_schema::Sequence> {
        tokio::sync::watch::channel(0).1
    }

    fn model_stats(&self) -> Vec<crate::backend::ModelStats> {
        Vec::new()
    }

    fn add_model(
        &self,
        _: &str,
        _: Vec<u8>,
        _: &crate::backend::NewVersion,
    ) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn promote(&self, _: &str, _: &str, _: &str) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn rollback(&self, _: &str, _: &str) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn remove_version(&self, _: &str, _: &str) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn backfill(&self, _: &[String]) -> Result<serde_json::Value, Problem> {
        nothing()
    }

    fn measures(&self) -> Vec<Measure> {
        Vec::new()
    }
}

fn reply(accepted: usize, rejected: &[usize], sequence: u64) -> IngestReply {
    let rejected = rejected.iter().map(|row| RejectedFact {
        row: *row,
        field: None,
        reason: "wrong".into(),
    });
    IngestReply {
        accepted,
        duplicates: 0,
        rejected: rejected.collect(),
        sequence,
    }
}

fn limits() -> Limits {
    Limits {
        feed_batches_in_flight_max: 2,
        feed_rejected_max: 2,
        ..Limits::default()
    }
}

async fn send(feed: &Feed, text: &'static str) -> Result<(), Problem> {
    let ready = feed
        .ready()
        .await
        .ok_or_else(|| nothing::<()>().unwrap_err())?;
    let body = Bytes::from_static(text.as_bytes());
    let options = IngestOptions::default();
    ready.take("c", BodyFormat::Ndjson, body, options).await
}

/// Whether another batch would be taken now.
async fn has_room(feed: &Feed) -> bool {
    let moment = Duration::from_millis(50);
    matches!(
        tokio::time::timeout(moment, feed.ready()).await,
        Ok(Some(_))
    )
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_than_may_be_on_its_way_and_answers_are_merged_in_order() {
    let backend = Arc::new(Slow::default());
    let (feed, mut told) = open(backend.clone(), &limits());
    send(&feed, "a").await.unwrap();
    send(&feed, "b").await.unwrap();
    assert!(!has_room(&feed).await);
    assert_eq!(backend.waiting(), 2);
    assert_eq!(backend.answer(Ok(reply(3, &[1], 3))), b"a");
    let first = told.next().await.unwrap();
    assert_eq!((first.progress.rows, first.progress.batches), (4, 1));
    send(&feed, "c").await.unwrap();
    assert!(!has_room(&feed).await);
    backend.answer(Ok(reply(2, &[0, 3], 5)));
    backend.answer(Ok(reply(1, &[0], 6)));
    feed.finish(Ok(()));
    tokio::task::yield_now().await;
    let last = told.next().await.unwrap();
    let rows: Vec<usize> = last.progress.rejected.iter().map(|r| r.row).collect();
    assert_eq!(
        rows,
        [4, 7],
        "counted through the feed, as many as are listed"
    );
    let counts = (
        last.progress.rows,
        last.progress.accepted,
        last.progress.rejected_rows,
    );
    assert_eq!(counts, (10, 6, 4));
    assert_eq!((last.progress.sequence, last.end), (Some(6), Some(Ok(()))));
    assert_eq!(told.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_busy_backend_is_waited_for_and_batches_keep_their_order() {
    let backend = Arc::new(Slow::default());
    let (feed, _told) = open(backend.clone(), &limits());
    backend.busy.store(3, Ordering::Relaxed);
    send(&feed, "a").await.unwrap();
    send(&feed, "b").await.unwrap();
    assert_eq!(backend.answer(Ok(reply(1, &[], 1))), b"a");
    assert_eq!(backend.answer(Ok(reply(1, &[], 2))), b"b");
}

#[tokio::test(start_paused = true)]
async fn the_first_error_ends_a_feed_and_nothing_behind_it_is_acknowledged() {
    let backend = Arc::new(Slow::default());
    let (feed, mut told) = open(backend.clone(), &limits());
    send(&feed, "a").await.unwrap();
    send(&feed, "b").await.unwrap();
    backend.answer(Ok(reply(1, &[], 1)));
    send(&feed, "c").await.unwrap();
    backend.answer(Err(Problem::external("disk-full", "the disk is full")));
    backend.answer(Ok(reply(1, &[], 2)));
    feed.ended().await;
    assert!(feed.ready().await.is_none());
    feed.finish(Ok(()));
    let mut last = told.next().await.unwrap();
    while last.end.is_none() {
        last = told.next().await.unwrap();
    }
    assert_eq!(last.progress.rows, 1);
    assert_eq!(last.end.unwrap().unwrap_err().code, "disk-full");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_is_dropped_is_told_as_cut() {
    let backend = Arc::new(Slow::default());
    let (feed, mut told) = open(backend, &limits());
    drop(feed);
    let last = told.next().await.unwrap();
    assert_eq!(last.end.unwrap().unwrap_err().code, "feed-cut");
}
