//! [`TestSink`]: keeps what was recorded, for tests to look at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use taba_core::wire::{Block, Content, Reader, Receipt, column};
use taba_core::{Event, NameError, TabName, TabType, Value};

use crate::buffer::SealedBatch;
use crate::sink::{Sink, SinkError};

/// Keeps everything that a [`Client`](crate::Client) sends, for a test to look at. Clones are the same sink.
///
/// Build the Client without `handlers`: events then come as they were recorded. They come with the next flush, so
/// call `client.flush(..)` before looking. Each method panics where a test should fail: a name that is none, values of
/// another type.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_client::{Client, Reading, TestSink};
///
/// let sink = TestSink::new();
/// let client = Client::builder("test").sink(sink.clone()).build()?;
/// client.counter("bids;to=MEM").unwrap().add(2.5);
/// client.gauge("build").unwrap().set("v1.2");
/// let _ = client.flush(Duration::from_secs(5));
/// assert_eq!(sink.values::<f64>("bids;to=MEM"), [2.5]);
/// assert_eq!(sink.values::<Reading>("build"), [Reading::from("v1.2")]);
/// assert!(sink.values::<f64>("other").is_empty());
/// # Ok::<(), taba_client::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TestSink(Arc<Mutex<Vec<Block>>>);

impl TestSink {
    /// A sink that has nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The values of one Tab, in the order in which they were recorded by each thread; empty when there are none.
    ///
    /// # Panics
    /// When the name is none, the values are of another type, or they were folded by a Handler of the Client's.
    #[track_caller]
    pub fn values<V: Value>(&self, tab: impl TryInto<TabName, Error: Into<NameError>>) -> Vec<V> {
        self.events(tab).into_iter().map(|event| event.value).collect()
    }

    /// The events of one Tab, each with its time; see [`values`](Self::values).
    ///
    /// # Panics
    /// As [`values`](Self::values).
    #[track_caller]
    pub fn events<V: Value>(&self, tab: impl TryInto<TabName, Error: Into<NameError>>) -> Vec<Event<V>> {
        let tab = match tab.try_into().map_err(Into::into) {
            Ok(tab) => tab,
            Err(error) => panic!("no tab has this name: {error}"),
        };
        let mut events = Vec::new();
        for block in self.blocks().iter().filter(|block| block.tab == tab) {
            match decoded(block) {
                Ok(more) => events.extend(more),
                Err(what) => panic!("tab {tab} of type {}: {what}", block.tab_type),
            }
        }
        events
    }

    /// Every Tab that was recorded, with its type, each once, sorted by name. Taba's own are left out.
    pub fn tabs(&self) -> Vec<(TabName, TabType)> {
        let blocks = self.blocks();
        let ours = blocks.iter().filter(|block| !block.tab.is_reserved());
        let mut tabs: Vec<_> = ours.map(|block| (block.tab.clone(), block.tab_type.clone())).collect();
        drop(blocks);
        tabs.sort_unstable();
        tabs.dedup();
        tabs
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.blocks().clear();
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<Block>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decoded<V: Value>(block: &Block) -> Result<Vec<Event<V>>, String> {
    let Content::Events(bytes) = &block.content else {
        return Err("its events were folded; build the client of a test without `handlers`".to_owned());
    };
    let mut reader = Reader::new(bytes);
    let count = block.events as usize;
    let columns = column::times(&mut reader, count).and_then(|times| {
        let values = V::decode_column(&mut reader, count)?;
        reader.finish("bytes behind the values").map(|()| (times, values))
    });
    let (times, values) = columns
        .map_err(|error| format!("its values are not of the type {}: {error}", std::any::type_name::<V>()))?;
    Ok(times.into_iter().zip(values).map(|(time, value)| Event::new(time, value)).collect())
}

#[async_trait]
impl Sink for TestSink {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        let batch = batch.batch();
        self.blocks().extend_from_slice(&batch.blocks);
        Ok(Receipt::new(batch.seq, batch.sent_at, Vec::new()))
    }
}
