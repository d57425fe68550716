//! Several Redis processes as one store: this crate is the place for it.
//!
//! A deployment's [`VBuckets`](taba_core::VBuckets) are to be spread over Redis primaries, each VBucket one hash, each
//! commit one script with one write command, behind [`taba_core::Store`]. None of that exists yet; the crate is here
//! so that the family's shape is complete and nothing else has to move when it does. Servers run on `MemoryStore`
//! (`taba-core`) or `EmbeddedStore` (`taba-server`) until then.

#![deny(missing_docs)]
