//! A library that records, and does not know whether its application has a Client.
//!
//! `cargo run -p taba-examples --bin library` shows it in an application without a Client, with one, and in a test.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use taba_client::{Client, TestSink, with_client};

/// What would be a crate of its own. All that it needs is `taba-client`.
mod library {
    use taba_client::{Counter, Lazy, TabName, Timer};

    static WORDS: Lazy<Counter> = taba_client::counter("library.words");
    static TIME: Lazy<Timer> = taba_client::timer("library.seconds");

    pub(crate) fn count_words(text: &str) -> usize {
        let _time = TIME.get().start();
        let words = text.split_whitespace().count();
        WORDS.get().add(words);
        // A name that is known at run time only. A label may have any text.
        let longest = text.split_whitespace().max_by_key(|word| word.len()).unwrap_or_default();
        let name = TabName::builder("library.longest").label("word", longest);
        if let Ok(counter) = taba_client::current().counter(name) {
            counter.increment();
        }
        words
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Nobody has set up a Client: the library works, and records nothing.
    library::count_words("nothing of this is recorded");

    // An application sets up its Client, once. This one shows what it was given; yours has an Agent instead of the sink.
    let sink = TestSink::new();
    let client = Client::builder("web-01").sink(sink.clone()).build()?;
    client.set_default()?;
    library::count_words("the quick brown fox");
    println!("the application: {:?} words, tabs {:?}", recorded(&client, &sink), names(&sink));

    // A test has a Client of its own, and sees nothing of other tests.
    let sink = TestSink::new();
    let client = Client::builder("test").sink(sink.clone()).build()?;
    with_client(&client, || library::count_words("Zürich, again"));
    assert_eq!(recorded(&client, &sink), [2.0]);
    println!("a test: {:?} words, tabs {:?}", recorded(&client, &sink), names(&sink));
    Ok(())
}

/// What is recorded travels with the next flush.
fn recorded(client: &Client, sink: &TestSink) -> Vec<f64> {
    let report = client.flush(Duration::from_secs(5));
    assert_eq!(report.left, 0, "a test sink takes everything");
    sink.values("library.words")
}

fn names(sink: &TestSink) -> Vec<String> {
    sink.tabs().iter().map(|(tab, _)| tab.shown().into_owned()).collect()
}
