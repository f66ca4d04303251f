//! Nodes of trees.
#![no_main]
use chronolith::format::tree::TreeNode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = TreeNode::decode(bytes) {
        assert_eq!(node.encode().unwrap(), bytes);
    }
});
