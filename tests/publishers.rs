//! x
#![cfg(test)]
mod support;
#[test]
fn a() {
    let r = support::redis::Redis::start();
    assert_eq!(r.publish("a", "b"), 0);
    assert!(std::env::var("X").is_err());
}
fn helper() {
    let x: Option<u8> = None;
    x.unwrap();
}
