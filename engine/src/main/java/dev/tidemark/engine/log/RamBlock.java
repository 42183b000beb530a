package dev.tidemark.engine.log;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.FileHoles;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;

/**
 * One contiguous piece of guest memory: the unit that the migration stream names and that a log
 * tracks. The memory belongs to the VMM and is only borrowed; it must outlive every user of the
 * block.
 *
 * @param name what both sides call it, 1 to 255 bytes of UTF-8
 * @param memory its host mapping: native, writable, not closed, at a page boundary, a multiple of
 *     the page long. While a migration sends or loads it, all of it must stay mapped and readable,
 *     at the destination also writable: a load from memory that is not mapped ends the process
 * @param holes which of its pages have no memory yet, if that is known: such pages are sent as zero
 *     without being read, and are not written at the destination. Without it each page of a shared
 *     file mapping is allocated when it is read; of private anonymous memory only page tables are
 */
public record RamBlock(String name, MemorySegment memory, Optional<FileHoles> holes) {
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
    if (memory.isReadOnly()) {
      throw new IllegalArgumentException("block " + name + ": a guest's memory is not read-only");
    }
    checkOpen(name, memory);
    if (memory.byteSize() == 0
        || memory.byteSize() % Pages.SIZE != 0
        || memory.address() % Pages.SIZE != 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "block %s: %d bytes at 0x%x are not whole pages of %d bytes",
              name,
              memory.byteSize(),
              memory.address(),
              Pages.SIZE));
    }
  }

  /** A block whose holes are not known. */
  public RamBlock(String name, MemorySegment memory) {
    this(name, memory, Optional.empty());
  }

  /**
   * A block that is a shared mapping of a file, such as a memfd.
   *
   * @param name what both sides call it, 1 to 255 bytes of UTF-8
   * @param memory its host mapping
   * @param file its descriptor; borrowed, open as long as the block is in use. Its file position is
   *     moved
   * @param offset where in the file the block begins, in bytes
   * @throws IllegalArgumentException if the memory is not a shared mapping of that file there
   */
  public static RamBlock ofFile(String name, MemorySegment memory, Fd file, long offset) {
    return new RamBlock(name, memory, Optional.of(FileHoles.of(memory, file, offset)));
  }

  private static void checkOpen(String name, MemorySegment memory) {
    if (!memory.scope().isAlive()) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "block %s: the arena of its %d bytes at 0x%x is closed",
              name,
              memory.byteSize(),
              memory.address()));
    }
  }

  /**
   * Checks that blocks can be those of one guest: names all different, no memory closed, and no
   * page in two of them at one address, as each would lose the other's writes. Memory that is
   * mapped twice is not noticed.
   *
   * @throws IllegalArgumentException if not, naming the blocks and what they share
   */
  public static void checkTogether(List<RamBlock> blocks) {
    List<RamBlock> sorted = new ArrayList<>(blocks);
    sorted.sort((one, two) -> Long.compareUnsigned(one.address(), two.address()));
    Set<String> names = new HashSet<>();
    RamBlock before = null;
    for (RamBlock block : sorted) {
      if (!names.add(block.name)) {
        throw new IllegalArgumentException("two blocks of one name: " + blocks);
      }
      checkOpen(block.name, block.memory);
      if (before != null && block.address() - before.address() < before.bytes()) {
        long first = (block.address() - before.address()) >>> Pages.SHIFT;
        long shared = Math.min(before.pages() - first, block.pages());
        throw new IllegalArgumentException(
            String.format(
                Locale.ROOT,
                "blocks %s and %s share memory: pages %d+%d of %s are pages 0+%d of %s",
                before,
                block,
                first,
                shared,
                before.name,
                shared,
                block.name));
      }
      before = block;
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
