package dev.tidemark.engine.log;

import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;

/**
 * One contiguous piece of guest memory: the unit that the migration stream names and that a log
 * tracks. The memory belongs to the VMM and is only borrowed; it must outlive every user of the
 * block.
 *
 * @param name what both sides call it, 1 to 255 bytes of UTF-8
 * @param memory its host mapping: native, at a page boundary, a multiple of the page long
 */
public record RamBlock(String name, MemorySegment memory) {
  /** Checks the name and the memory. */
  public RamBlock {
    int nameBytes = name.getBytes(StandardCharsets.UTF_8).length;
    if (nameBytes < 1 || nameBytes > 255) {
      throw new IllegalArgumentException(
          "block name of " + nameBytes + " bytes: the stream has room for 1 to 255");
    }
    if (!memory.isNative()) {
      throw new IllegalArgumentException("block " + name + ": heap memory has no fixed address");
    }
    if (memory.byteSize() == 0
        || memory.byteSize() % Pages.SIZE != 0
        || memory.address() % Pages.SIZE != 0) {
      throw new IllegalArgumentException(
          "block %s: %d bytes at 0x%x are not whole pages of %d bytes"
              .formatted(name, memory.byteSize(), memory.address(), Pages.SIZE));
    }
  }

  /** Its length in bytes. */
  public long bytes() {
    return memory.byteSize();
  }

  /** Its length in pages of {@link Pages#SIZE} bytes. */
  public long pages() {
    return memory.byteSize() >>> Pages.SHIFT;
  }

  /** Where its mapping starts in this process. */
  public long address() {
    return memory.address();
  }

  @Override
  public String toString() {
    return name + " (" + bytes() + " bytes at 0x" + Long.toHexString(address()) + ")";
  }
}
