use super::*;

#[test]
fn a_request_is_one_aligned_block_and_decodes_from_its_bytes() {
    assert_eq!((size_of::<Request>(), align_of::<Request>()), (REQUEST_SIZE, REQUEST_SIZE));
    let bytes = core::array::from_fn(|i| i as u8);
    let request = Request::from_bytes(&bytes);
    assert_eq!((request.op, request.status), (0x0302_0100, 0x0706_0504));
    assert_eq!(request.args[0], 0x0f0e_0d0c_0b0a_0908);
    assert_eq!(request.args[4], 0x2f2e_2d2c_2b2a_2928);
    assert_eq!(request.reply, [0x3736_3534_3332_3130, 0x3f3e_3d3c_3b3a_3938]);
}

#[test]
fn numbers_decode_to_what_they_were_made_from() {
    for bits in 0..20 {
        assert!(Op::from_bits(bits).is_none_or(|op| op as u32 == bits));
        assert!(Status::from_bits(bits).is_none_or(|status| status as u32 == bits));
        assert!(Outcome::from_bits(bits.into()).is_none_or(|outcome| outcome as u64 == u64::from(bits)));
        assert!(Kind::from_bits(bits.into()).is_none_or(|kind| kind as u64 == u64::from(bits)));
        assert!(Source::from_bits(bits as u8).is_none_or(|source| source as u32 == bits));
        assert!(Schedule::from_bits(bits as u8).is_none_or(|schedule| schedule as u32 == bits));
    }
    assert_eq!((1..=16).filter_map(Op::from_bits).count(), 16);
    assert_eq!((0..=4).filter_map(Status::from_bits).count(), 5);
    assert_eq!((Op::from_bits(0), Op::from_bits(17), Status::from_bits(5)), (None, None, None));
}
