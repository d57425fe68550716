struct Orders;

fn main() {
    let _ = taba_core::Registry::builder().with("Orders", Orders);
}
