package dev.tidemark.engine.device;

import dev.tidemark.bench.fuzz.Watched;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.engine.stream.StreamException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** The section of a VFIO device, piece after piece, with a small buffer. */
public final class VfioStateTarget {
  private static final MemorySegment BUFFER = Arena.global().allocate(64);

  private VfioStateTarget() {}

  /** Bytes of an array. */
  private static final class Input implements SectionInput {
    private final byte[] data;
    private int next;

    Input(byte[] data) {
      this.data = data;
    }

    private int take(long bytes) {
      if (bytes > data.length - next) {
        throw new StreamException("stream ended at byte " + next);
      }
      int at = next;
      next += (int) bytes;
      return at;
    }

    @Override
    public int be8() {
      return Byte.toUnsignedInt(data[take(1)]);
    }

    @Override
    public int be16() {
      return be8() << 8 | be8();
    }

    @Override
    public int be32() {
      return be16() << 16 | be16();
    }

    @Override
    public long be64() {
      return (long) be32() << 32 | Integer.toUnsignedLong(be32());
    }

    @Override
    public void bytes(byte[] target) {
      bytes(MemorySegment.ofArray(target));
    }

    @Override
    public void bytes(MemorySegment target) {
      int at = take(target.byteSize());
      MemorySegment.copy(MemorySegment.ofArray(data), at, target, 0, target.byteSize());
    }

    @Override
    public void skip(long bytes) {
      take(bytes);
    }

    @Override
    public long position() {
      return next;
    }
  }

  /** Called by Jazzer. */
  public static void fuzzerTestOneInput(byte[] data) {
    Watched.run(data.length, () -> load(data));
  }

  private static void load(byte[] data) {
    long[] written = {0};
    VfioStateInput state =
        new VfioStateInput(
            "d/vfio",
            BUFFER,
            piece -> {
              if (piece.byteSize() < 1 || piece.byteSize() > BUFFER.byteSize()) {
                throw new AssertionError(piece.byteSize() + " bytes at once");
              }
              written[0] += piece.byteSize() + (piece.get(ValueLayout.JAVA_BYTE, 0) & 0);
            });
    Input input = new Input(data);
    try {
      while (true) {
        state.load(input);
      }
    } catch (StreamException e) {
      Watched.checkMessage(e);
    }
    if (written[0] > data.length) {
      throw new AssertionError(written[0] + " bytes of state out of " + data.length);
    }
  }
}
