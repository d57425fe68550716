#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Seen(u64);

fn main() {
    fn keep<S: taba_core::State>(_: S) {}
    keep(Seen(1));
}
