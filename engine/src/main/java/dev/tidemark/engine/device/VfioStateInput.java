package dev.tidemark.engine.device;

import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.engine.stream.StreamException;
import java.lang.foreign.MemorySegment;
import java.util.function.Consumer;

/**
 * The section of a VFIO device that arrives: its tags, checked, and the device's state out of it.
 *
 * <p>Threading: one thread. Footprint: the caller's buffer, whatever length the section claims.
 */
final class VfioStateInput {
  private final String section;
  private final MemorySegment buffer;
  private final Consumer<MemorySegment> device;
  private boolean setUp;

  /**
   * @param section its name
   * @param buffer native memory that state goes through
   * @param device takes each piece of state, which is in the buffer
   */
  VfioStateInput(String section, MemorySegment buffer, Consumer<MemorySegment> device) {
    this.section = section;
    this.buffer = buffer;
    this.device = device;
  }

  /**
   * Reads one piece of the section, up to its end tag.
   *
   * @throws StreamException if it is not what it should be
   */
  void load(SectionInput input) {
    while (true) {
      long at = input.position();
      long tag = input.be64();
      if (!setUp && tag != VfioStateFormat.SETUP_STATE) {
        throw wrong(at, "does not begin with SETUP_STATE, but with 0x" + Long.toHexString(tag));
      }
      if (tag == VfioStateFormat.END_OF_STATE) {
        return;
      } else if (tag == VfioStateFormat.SETUP_STATE && !setUp) {
        setUp = true;
      } else if (tag == VfioStateFormat.DATA_STATE) {
        data(input);
      } else if (tag == VfioStateFormat.CONFIG_STATE) {
        throw wrong(at, "has the configuration space of a QEMU's device, which is not loaded here");
      } else if (tag != VfioStateFormat.INIT_DATA_SENT) {
        throw wrong(at, "has a tag that is not known, or not here: 0x" + Long.toHexString(tag));
      }
    }
  }

  private void data(SectionInput input) {
    long at = input.position();
    long length = input.be64();
    if (length <= 0) {
      throw wrong(at, "has data of " + Long.toUnsignedString(length) + " bytes");
    }
    for (long left = length; left > 0; left -= buffer.byteSize()) {
      MemorySegment piece = left >= buffer.byteSize() ? buffer : buffer.asSlice(0, left);
      input.bytes(piece);
      device.accept(piece);
    }
  }

  private StreamException wrong(long at, String what) {
    return new StreamException("stream byte " + at + ": section " + section + " " + what);
  }
}
