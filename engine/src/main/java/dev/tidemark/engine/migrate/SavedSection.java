package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.SectionOutput;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** Keeps a section's data until the RAM section before it is out. */
final class SavedSection extends ByteArrayOutputStream implements SectionOutput {
  @Override
  public void be8(int value) {
    write(value);
  }

  @Override
  public void be16(int value) {
    be8(value >>> 8);
    be8(value);
  }

  @Override
  public void be32(int value) {
    be16(value >>> 16);
    be16(value);
  }

  @Override
  public void be64(long value) {
    be32((int) (value >>> 32));
    be32((int) value);
  }

  @Override
  public void bytes(byte[] source) {
    writeBytes(source);
  }

  @Override
  public void bytes(MemorySegment source) {
    writeBytes(source.toArray(ValueLayout.JAVA_BYTE));
  }
}
