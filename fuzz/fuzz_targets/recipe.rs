//! Nodes of recipes.
#![no_main]
use chronolith::format::recipe::RecipeNode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = RecipeNode::decode(bytes) {
        let mut again = Vec::new();
        node.encode(&mut again).unwrap();
        assert_eq!(again, bytes);
    }
});
