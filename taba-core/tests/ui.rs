//! What the compiler says to somebody who writes their first Handler.

#[test]
fn messages_say_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
