//! The bytes are a promise: they come back as they were, hostile ones are errors, and last year's still read.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use bytes::Bytes;
use proptest::prelude::*;
use taba_core::ledger::{Where, Why};
use taba_core::limits::{
    BATCH_BLOCKS_MAX, BATCH_EVENTS_MAX, BLOCK_EVENTS_MAX, BLOCK_FOLDED_EVENTS_MAX, CLIENT_ID_BYTES_MAX,
    FRAME_BYTES_MAX, TAB_NAME_BYTES_MAX, TAB_TYPE_BYTES_MAX,
};
use taba_core::wire::{
    Ack, Answer, Block, ClientBatch, Compression, Content, Frame, Kind, LaneBatch, Lanes, Probe, Reader,
    Receipt, Refusal, WireError, decode_acks, encode_acks, put_u64,
};
use taba_core::{
    BaseId, ClientId, Envelope, Events, Part, SeqNo, Spread, StreamId, TabName, TabType, Timestamp, VBuckets,
};

fn events_block(tab: &str, n: usize) -> Block {
    let times: Vec<_> =
        (0..n as i64).map(|i| Timestamp::from_micros(1_795_371_115_000_000 + i * 1_000)).collect();
    let values: Vec<_> = (0..n).map(|i| (i % 7) as f64).collect();
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new("web-01").unwrap());
    Block::of_events(tab, client, TabType::new("CounterGroup").unwrap(), Events::new(&times, &values))
        .unwrap()
}

fn state_block() -> Block {
    Block::new(
        TabName::new("delay;to=MEM").unwrap(),
        ClientId::new("ATL").unwrap(),
        TabType::new("PercentileGroup").unwrap(),
        12,
        Timestamp::from_secs(-5)..=Timestamp::from_secs(5),
        Content::State { version: 3, bytes: Bytes::from_static(b"state") },
    )
}

fn client_batch() -> ClientBatch {
    ClientBatch::new(
        ClientId::new("web-01").unwrap(),
        0x0123_4567_89ab_cdef,
        SeqNo(42),
        Timestamp::from_micros(1_795_371_115_250_000),
        vec![events_block("bids_won", 100), state_block()],
    )
}

fn lanes() -> Lanes {
    let batch = |vbucket, seq| {
        LaneBatch::new(StreamId(7), vbucket, SeqNo(seq), 1000, vec![state_block(), events_block("a", 3)])
            .with_base(SeqNo(1))
    };
    let probe = Probe::new(StreamId(7), 6, SeqNo(400), 70_000);
    let sent_at = Timestamp::from_micros(1_795_371_115_300_000);
    Lanes::new(sent_at, vec![batch(5, 1), batch(1023, 300)]).with_probes(vec![probe])
}

fn lane_batch() -> LaneBatch {
    lanes().batches.remove(0)
}

fn acks() -> Vec<Ack> {
    let refusal = Refusal::new(3, Why::TypeConflict, 17);
    vec![
        Ack::new(StreamId(7), 5, SeqNo(300), Answer::Applied)
            .with_stable(SeqNo(299))
            .with_refused(vec![refusal]),
        Ack::new(StreamId(7), 9, SeqNo(0), Answer::Nak).with_stable(SeqNo(0)),
    ]
}

/// What a divided State was, and its stored form: two parts.
fn divided() -> Vec<(Part, Bytes)> {
    let base = Bytes::from_static(b"what it was at some time");
    vec![(Part::WHOLE, envelope().encode_since(BaseId::of(&base))), (Part::BASE, base)]
}

fn envelope() -> Envelope {
    let state = Bytes::from_static(b"a state");
    Envelope::new(TabType::new("CounterGroup").unwrap(), 1, 300, state)
}

#[test]
fn messages_come_back() {
    let batch = client_batch();
    assert_eq!(ClientBatch::decode(&batch.encode().into()).unwrap(), (batch, vec![]));
    assert_eq!(Lanes::decode(&lanes().encode().into()).unwrap(), lanes());
    assert_eq!(decode_acks(&encode_acks(&acks())).unwrap(), acks());
    let refused = vec![Refusal::new(0, Why::BadName, 1)];
    let receipt = Receipt::new(SeqNo(42), Timestamp::from_secs(9), refused);
    assert_eq!(Receipt::decode(&receipt.encode()).unwrap(), receipt);
    assert_eq!(Envelope::decode(&envelope().encode()).unwrap(), envelope());
    let mut parts = divided();
    let joined = Envelope::join(&parts).unwrap();
    assert_eq!((joined.tab_type.as_str(), joined.version, joined.events), ("CounterGroup", 1, 300));
    assert_eq!(joined.states(), (Some(&parts[1].1), envelope().state().unwrap()));
    assert_eq!((joined.state(), Envelope::decode(&parts[0].1).is_err()), (None, true));
    parts.reverse();
    assert_eq!(Envelope::join(&parts).unwrap(), joined);
    // A base that a whole in one part does not name was left behind.
    let whole = (Part::WHOLE, envelope().encode());
    assert_eq!(Envelope::join(&[whole, parts[0].clone()]).unwrap(), envelope());
}

#[test]
fn a_block_with_a_bad_name_does_not_spoil_the_others() {
    let batch = client_batch();
    let mut bytes = batch.encode();
    let place = bytes.windows(8).position(|window| window == b"bids_won").unwrap();
    bytes[place] = b' ';
    let (read, bad) = ClientBatch::decode(&bytes.into()).unwrap();
    assert_eq!(read.blocks, batch.blocks[1..]);
    assert_eq!((bad.len(), bad[0].block, bad[0].events), (1, 0, 100));
}

#[test]
fn every_answer_comes_back() {
    let answers = [
        Answer::Applied,
        Answer::Duplicate,
        Answer::Nak,
        Answer::Unavailable,
        Answer::Busy,
        Answer::Misplaced,
        Answer::Misdated,
    ];
    let with = |answer| Ack::new(StreamId(1), 2, SeqNo(3), answer).with_stable(SeqNo(2));
    let acks: Vec<_> = answers.into_iter().map(with).collect();
    assert_eq!(decode_acks(&encode_acks(&acks)).unwrap(), acks);
    let mut unknown = encode_acks(&acks[6..]);
    let at = unknown.iter().rposition(|byte| *byte == Answer::Misdated as u8).unwrap();
    unknown[at] = 7;
    assert!(matches!(decode_acks(&unknown), Err(WireError::Malformed { .. })));
}

#[test]
fn in_a_lane_a_block_with_a_bad_name_is_withheld_with_its_reason() {
    let mut bytes = lanes().encode();
    let place = bytes.windows(3).position(|window| window == b"ATL").unwrap();
    bytes[place] = b' ';
    let read = &Lanes::decode(&bytes.into()).unwrap().batches[0].blocks[0];
    assert_eq!(read.content, Content::Withheld { place: Where::Server, why: Why::BadName });
    assert_eq!(read.events, state_block().events);
}

#[test]
fn a_block_may_reach_its_bounds_and_not_pass_them() {
    let decoded = |block: &Block| {
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        assert!(block.encoded_bytes() >= bytes.len(), "an estimate below {} bytes", bytes.len());
        assert!(block.encoded_bytes() <= bytes.len() + 64, "an estimate far above {} bytes", bytes.len());
        let bytes = Bytes::from(bytes);
        Block::decode(&mut Reader::new(&bytes), &bytes)
    };
    let long = {
        let mut block = state_block();
        block.tab = TabName::new(&"t".repeat(TAB_NAME_BYTES_MAX)).unwrap();
        block.client = ClientId::new(&"c".repeat(CLIENT_ID_BYTES_MAX)).unwrap();
        block.tab_type = TabType::new(&"T".repeat(TAB_TYPE_BYTES_MAX)).unwrap();
        block.earliest = Timestamp::MIN;
        block.latest = Timestamp::MAX;
        block
    };
    assert_eq!(decoded(&long).unwrap(), long);
    let withheld = Content::Withheld { place: Where::Client, why: Why::Full };
    let withheld = state_block().with_content(withheld);
    assert_eq!(decoded(&withheld).unwrap(), withheld);
    // The payload is not looked into.
    let of = |events: usize| {
        let mut block = state_block();
        block.events = events as u64;
        block.content = Content::Events(Bytes::from_static(b"x"));
        block
    };
    assert_eq!(decoded(&of(BLOCK_EVENTS_MAX)).unwrap(), of(BLOCK_EVENTS_MAX));
    assert!(matches!(decoded(&of(BLOCK_EVENTS_MAX + 1)), Err(WireError::TooLarge { .. })));
}

#[test]
fn a_number_that_does_not_fit_is_malformed() {
    let read = |last: u8| {
        let bytes = [[0xff; 9].as_slice(), &[last]].concat();
        Reader::new(&bytes).u64("a number")
    };
    assert_eq!(read(1), Ok(u64::MAX));
    assert!(matches!(read(2), Err(WireError::Malformed { what: "a number" })));
    let mut ten = Vec::new();
    put_u64(10, &mut ten);
    assert_eq!(Reader::new(&ten).count(10, "things"), Ok(10));
    assert!(matches!(
        Reader::new(&ten).count(9, "things"),
        Err(WireError::TooLarge { found: 10, max: 9, .. })
    ));
}

#[test]
fn a_frame_that_is_not_compressed_has_one_size() {
    let mut frame = Frame::encode(Kind::ClientBatch, &[0; 5], Compression::None);
    assert_eq!(frame[12], 5, "the size of the message");
    frame[12] = 6;
    assert!(matches!(Frame::decode(&frame.into(), Kind::ClientBatch), Err(WireError::Malformed { .. })));
}

#[test]
fn the_words_of_the_ledger_are_a_promise() {
    let places = [Where::Client, Where::Agent, Where::Server].map(|place| place.to_string());
    assert_eq!(places, ["client", "agent", "server"]);
    let words = Why::ALL.map(|why| why.to_string()).join(" ");
    assert_eq!(
        words,
        "bad_name unknown_type type_conflict undecodable unknown_version bad_value full gap expired shutdown \
         too_many_tabs damaged handler_panicked poison"
    );
}

#[test]
fn what_is_withheld_counts_as_much_as_before() {
    let whole = lane_batch();
    let mut batch = whole.clone();
    batch.blocks[0].content = Content::Withheld { place: Where::Agent, why: Why::Poison };
    let bytes = Lanes::new(Timestamp::default(), vec![batch.clone()]).encode().into();
    assert_eq!(Lanes::decode(&bytes).unwrap().batches, [batch.clone()]);
    assert_eq!(batch.events(), whole.events());
    // More than any Agent lets pass is not believed.
    batch.blocks[1] = state_block();
    batch.blocks[1].events = u64::MAX;
    let bytes = Lanes::new(Timestamp::default(), vec![batch]).encode().into();
    let read = &Lanes::decode(&bytes).unwrap().batches[0].blocks[1];
    assert_eq!(read.events, BLOCK_FOLDED_EVENTS_MAX);
    assert_eq!(read.content, Content::Withheld { place: Where::Server, why: Why::Undecodable });
}

/// Few bytes claim many events. Whoever sends them, a Batch has no more to fold than it may: what is beyond is refused, each Block for
/// itself, and counted.
#[test]
fn a_batch_of_few_bytes_is_not_much_work() {
    let (times, values) = (vec![Timestamp::from_secs(1); BLOCK_EVENTS_MAX], vec![1.0; BLOCK_EVENTS_MAX]);
    let (tab, client, tab_type) = (TabName::new("x"), ClientId::new("web"), TabType::new("CounterGroup"));
    let events = Events::new(&times, &values);
    let block = Block::of_events(tab.unwrap(), client.unwrap(), tab_type.unwrap(), events).unwrap();
    assert!(block.encoded_bytes() < 128, "{} bytes", block.encoded_bytes());
    let mut blocks = vec![block.clone(); 20];
    // What has been folded already is no work.
    blocks[19] = state_block();
    let mut client_batch = client_batch();
    client_batch.blocks = blocks.clone();
    let (read, bad) = ClientBatch::decode(&client_batch.encode().into()).unwrap();
    assert_eq!((read.blocks.len(), bad.len()), (5, 15));
    assert!(bad.iter().all(|bad| bad.events == block.events && bad.error.code() == "too_large"), "{bad:?}");
    let mut batch = lane_batch();
    batch.blocks = blocks;
    let bytes = Lanes::new(Timestamp::default(), vec![batch.clone()]).encode().into();
    let read = &Lanes::decode(&bytes).unwrap().batches[0];
    assert_eq!(read.events(), batch.events(), "what is withheld is counted");
    let whole: Vec<_> = (0..20).filter(|n| read.blocks[*n] == batch.blocks[*n]).collect();
    assert_eq!(whole, [0, 1, 2, 3, 19]);
    assert_eq!(read.blocks.iter().map(Block::unfolded_events).sum::<u64>(), BATCH_EVENTS_MAX);
}

#[test]
fn frames_come_back_compressed_or_not() {
    let message = client_batch().encode();
    for compression in [Compression::None, Compression::Lz4] {
        let frame = Frame::encode(Kind::ClientBatch, &message, compression);
        assert_eq!(Frame::decode(&frame.into(), Kind::ClientBatch).unwrap().message, message);
    }
    let noise: Vec<u8> = (0..100_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let frame = Frame::encode(Kind::Acks, &noise, Compression::Lz4);
    assert_eq!(frame.len(), noise.len() + 20, "what does not shrink travels as it is");
    assert_eq!(Frame::decode(&frame.into(), Kind::Acks).unwrap().message, noise);
}

#[test]
fn a_wrong_frame_says_what_is_wrong() {
    let frame = Frame::encode(Kind::Lanes, &lanes().encode(), Compression::Lz4);
    let with = |at: usize, byte: u8| {
        let mut wrong = frame.clone();
        wrong[at] = byte;
        Frame::decode(&wrong.into(), Kind::Lanes).unwrap_err()
    };
    assert_eq!(with(0, b'X'), WireError::Magic);
    assert_eq!(with(4, 9), WireError::UnknownVersion { found: 9, known: 1 });
    assert_eq!(with(5, 1), WireError::UnexpectedKind { found: 1, expected: 3 });
    assert_eq!(with(frame.len() - 1, !frame[frame.len() - 1]), WireError::Checksum);
    assert!(matches!(with(11, 0xff), WireError::TooLarge { .. }));
    assert!(matches!(with(15, 0xff), WireError::TooLarge { .. }));
    for cut in 0..frame.len() {
        assert!(Frame::decode(&Bytes::copy_from_slice(&frame[..cut]), Kind::Lanes).is_err(), "cut at {cut}");
    }
    let mut longer = frame.clone();
    longer.push(0);
    assert!(Frame::decode(&longer.into(), Kind::Lanes).is_err());
}

#[test]
fn an_announced_size_is_not_believed() {
    // A body that claims to unpack to the bound but does not: an error, and no more memory than the bound.
    let mut frame = Frame::encode(Kind::Lanes, &lanes().encode(), Compression::Lz4);
    assert_eq!(frame[6], 1, "the sample must be one that compresses");
    frame[12..16].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
    assert_eq!(
        Frame::decode(&frame.into(), Kind::Lanes).unwrap_err(),
        WireError::Malformed { what: "a compressed body" }
    );
    // A list that claims more elements than there may be.
    let mut message = Vec::new();
    taba_core::wire::put_u64(u64::MAX, &mut message);
    assert!(matches!(decode_acks(&message), Err(WireError::TooLarge { .. })));
    let at_time = [&[0], &message[..]].concat();
    assert!(matches!(Lanes::decode(&at_time.into()), Err(WireError::TooLarge { .. })));
    let no_batches = [&[0, 0], &message[..]].concat();
    assert!(matches!(Lanes::decode(&no_batches.into()), Err(WireError::TooLarge { .. })));
}

#[test]
fn a_lane_batch_that_contradicts_itself_is_malformed() {
    for (seq, base) in [(1, 2), (1, 0), (0, 0), (u64::MAX, 1)] {
        let mut batch = lane_batch();
        batch.seq = SeqNo(seq);
        batch.base = SeqNo(base);
        let bytes = Lanes::new(Timestamp::default(), vec![batch]).encode().into();
        assert!(matches!(Lanes::decode(&bytes), Err(WireError::Malformed { .. })), "seq {seq}, base {base}");
    }
    for base in [0, u64::MAX] {
        let mut probe = lanes().probes[0];
        probe.base = SeqNo(base);
        let bytes = Lanes::default().with_probes(vec![probe]).encode().into();
        assert!(matches!(Lanes::decode(&bytes), Err(WireError::Malformed { .. })), "base {base}");
    }
}

#[test]
fn too_many_blocks_are_refused() {
    let blocks = vec![state_block(); BATCH_BLOCKS_MAX + 1];
    let mut batch = client_batch();
    batch.blocks = blocks;
    assert!(matches!(ClientBatch::decode(&batch.encode().into()), Err(WireError::TooLarge { .. })));
}

#[test]
fn the_ledger_is_not_counted_as_events() {
    let mut batch = lane_batch();
    assert_eq!(batch.events(), 15);
    batch.blocks.push(events_block("taba.recorded", 2));
    assert_eq!(batch.events(), 15);
}

/// The test vectors of `docs/WIRE.md`; computed with another implementation of XXH64.
#[test]
fn where_tabs_live_is_a_promise() {
    let of = |count, name: &str| VBuckets::new(count).unwrap().of(&TabName::new(name).unwrap()).index();
    let vectors =
        [("a", 64, 27), ("a", 1024, 603), ("bids_won", 1024, 480), ("delay;from=ATL;to=MEM", 16384, 15012)];
    let found: Vec<_> = vectors.iter().map(|(name, count, _)| (*name, *count, of(*count, name))).collect();
    assert_eq!(found, vectors);
    assert_eq!(xxhash_rust::xxh64::xxh64(b"", 0), 0xef46_db37_51d8_e999);
    assert_eq!(xxhash_rust::xxh64::xxh64(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
    for count in [0, 1, 32, 63, 65, 32768] {
        assert!(VBuckets::new(count).is_err(), "{count}");
    }
}

/// The same of a Tab that is spread.
#[test]
fn where_a_client_s_part_of_a_tab_lives_is_a_promise() {
    let place = |count, tab: &str, client: &str, spread| {
        let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
        VBuckets::new(count).unwrap().place(&tab, &client, Spread::new(spread).unwrap()).index()
    };
    let vectors = [
        (1024, "bids_won", "web-1", 2, 480),
        (1024, "bids_won", "web-1", 64, 376),
        (1024, "bids_won", "web-2", 64, 246),
        (16384, "delay;from=ATL;to=MEM", "host-17", 16, 15133),
    ];
    for (count, tab, client, spread, expected) in vectors {
        assert_eq!(place(count, tab, client, spread), expected, "{tab} {client} {spread}");
    }
}

/// Bytes written by version 0.1.0. When one of these fails, the format has changed: raise its version and keep reading
/// these. `TABA_BLESS=1` writes files that do not exist yet, and never changes one that does.
#[test]
fn golden_bytes_are_read_and_written_as_ever() {
    let goldens = [
        ("client_batch.bin", Frame::encode(Kind::ClientBatch, &client_batch().encode(), Compression::None)),
        ("lanes.bin", Frame::encode(Kind::Lanes, &lanes().encode(), Compression::None)),
        ("acks.bin", Frame::encode(Kind::Acks, &encode_acks(&acks()), Compression::None)),
        ("envelope.bin", envelope().encode().to_vec()),
        ("envelope_divided.bin", divided()[0].1.to_vec()),
    ];
    for (name, bytes) in goldens {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("TABA_BLESS").is_some() && !path.exists() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
    }
}

proptest! {
    #[test]
    fn noise_is_an_error_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = ClientBatch::decode(&bytes);
        let _ = Lanes::decode(&bytes);
        let _ = decode_acks(&bytes);
        let _ = Receipt::decode(&bytes);
        let _ = Envelope::decode(&bytes);
        let _ = Envelope::join(&[(Part::BASE, bytes.clone()), (Part::WHOLE, bytes.clone())]);
        let _ = Frame::decode(&bytes, Kind::Lanes);
    }

    #[test]
    fn one_wrong_byte_is_an_error_or_another_message(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut message = lanes().encode();
        let at = at.index(message.len());
        message[at] ^= flip;
        let _ = Lanes::decode(&message.into());
        let mut batch = client_batch().encode();
        let at = at % batch.len();
        batch[at] ^= flip;
        let _ = ClientBatch::decode(&batch.into());
        let mut stored = envelope().encode().to_vec();
        let at = at % stored.len();
        stored[at] ^= flip;
        prop_assert!(Envelope::decode(&stored.into()).is_err());
        for place in 0..2 {
            let mut parts = divided();
            let mut bytes = parts[place].1.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            parts[place].1 = bytes.into();
            prop_assert!(Envelope::join(&parts).is_err());
            parts.remove(place);
            prop_assert!(Envelope::join(&parts).is_err());
        }
    }
}
