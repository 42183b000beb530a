package dev.tidemark.bench.fuzz;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.stream.IterableHandler;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * A stream into two blocks, or into one as a QEMU without a machine has it: the first byte chooses,
 * the others are the stream.
 */
public final class StreamReaderTarget {
  private static final long PAGE = Pages.SIZE;
  private static final int RAM_PAGES = 16;
  private static final int VRAM_PAGES = 2;
  private static final byte CANARY = (byte) 0xc5;
  private static final MemorySegment ALL =
      Mapping.anonymous((RAM_PAGES + VRAM_PAGES + 3) * PAGE).segment();
  private static final long[] CANARIES = {
    0, (RAM_PAGES + 1) * PAGE, (RAM_PAGES + VRAM_PAGES + 2) * PAGE
  };
  private static final MemorySegment EXPECTED = Arena.global().allocate(PAGE).fill(CANARY);
  private static final RamBlock RAM = new RamBlock("ram", ALL.asSlice(PAGE, RAM_PAGES * PAGE));
  private static final RamBlock VRAM =
      new RamBlock("vga1", ALL.asSlice((RAM_PAGES + 2) * PAGE, VRAM_PAGES * PAGE));

  static {
    for (long at : CANARIES) {
      ALL.asSlice(at, PAGE).fill(CANARY);
    }
  }

  private StreamReaderTarget() {}

  /** An iterable section whose pieces say how long they are. */
  private static final class Counted implements IterableHandler {
    @Override
    public String name() {
      return "dev/vfio";
    }

    @Override
    public int instance() {
      return 0;
    }

    @Override
    public int version() {
      return 1;
    }

    @Override
    public void start() {}

    @Override
    public void load(SectionInput input) {
      input.skip(Short.toUnsignedInt((short) input.be16()));
    }

    @Override
    public void end() {}
  }

  /** Called by Jazzer. */
  public static void fuzzerTestOneInput(byte[] data) {
    if (data.length < 1 || data.length > Pipes.MAX_BYTES) {
      return;
    }
    Watched.run(data.length, () -> load(data));
    for (long at : CANARIES) {
      if (ALL.asSlice(at, PAGE).mismatch(EXPECTED) != -1) {
        throw new AssertionError("a byte outside the blocks, near " + at);
      }
    }
  }

  private static void load(byte[] data) {
    boolean one = (data[0] & 1) != 0;
    try (Socket socket = Pipes.giving(data, 1);
        StreamReader reader =
            one
                ? new StreamReader(socket, "none", List.of(RAM), List.of())
                : new StreamReader(
                    socket,
                    "none",
                    List.of(RAM, VRAM),
                    List.of(new Counted()),
                    List.of(new SectionHandler("cpu", 1, 2, SectionInput::be16)))) {
      try {
        reader.loadUntilHandover();
        reader.shut(0);
        reader.description();
      } catch (StreamException | LinuxException e) {
        Watched.checkMessage(e);
      }
      if (reader.pagesRead() * PAGE > data.length || reader.bytesRead() > data.length) {
        throw new AssertionError(reader.pagesRead() + " pages out of " + data.length + " bytes");
      }
    }
  }
}
