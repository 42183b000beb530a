package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * A device's state on its way: read on the source, written on the destination, opaque to everybody
 * but the device's driver.
 *
 * <p>Threading: one thread at a time. Cost: one system call a method; {@link #read} and {@link
 * #write} allocate nothing of their own.
 */
public final class VfioMigrationStream implements AutoCloseable {
  private final Fd fd;

  VfioMigrationStream(Fd fd) {
    this.fd = fd;
  }

  /**
   * What is left in a pre-copy phase ({@code struct vfio_precopy_info}); estimates, in bytes.
   *
   * @param initialBytes what should be moved before the device is stopped
   * @param dirtyBytes what changed since it was read
   */
  public record PrecopyInfo(long initialBytes, long dirtyBytes) {}

  /**
   * Reads state.
   *
   * @param buffer native memory, not empty, not read-only
   * @return bytes read; 0 at the end, which in a pre-copy phase only means for now
   * @throws LinuxException {@code ENODEV} if the device has left the state that the stream was for
   */
  public long read(MemorySegment buffer) {
    if (buffer.byteSize() == 0 || buffer.isReadOnly()) {
      throw new IllegalArgumentException("no memory to read into");
    }
    int number = fd.acquire();
    try {
      long result;
      do {
        result = Libc.read(number, buffer, buffer.byteSize());
      } while (result == -Errno.EINTR);
      // Drivers say either that nothing is there for now.
      return result == -Errno.ENOMSG ? 0 : Libc.check(result, "read(" + fd + ")");
    } finally {
      fd.release();
    }
  }

  /**
   * Writes state, all of it.
   *
   * @param buffer native memory
   * @throws LinuxException if the device refuses it: it comes from a device of another kind, or is
   *     damaged
   */
  public void write(MemorySegment buffer) {
    int number = fd.acquire();
    try {
      long written = 0;
      while (written < buffer.byteSize()) {
        MemorySegment rest = buffer.asSlice(written);
        long result = Libc.write(number, rest, rest.byteSize());
        if (result == 0) {
          // Asked again it would say so for ever.
          throw new LinuxException("write(" + fd + ")", Errno.EIO, "the driver takes nothing");
        }
        if (result != -Errno.EINTR) {
          written += Libc.check(result, "write(" + fd + ")");
        }
      }
    } finally {
      fd.release();
    }
  }

  /**
   * What is left ({@code VFIO_MIG_GET_PRECOPY_INFO}).
   *
   * @throws LinuxException {@code EINVAL} outside the pre-copy states; {@code ENOTTY} if the device
   *     has none
   */
  public PrecopyInfo precopyInfo() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(VFIO_PRECOPY_INFO_LAYOUT);
      argument.set(JAVA_INT, 0, (int) argument.byteSize());
      Ioctl.call(fd, VFIO_MIG_GET_PRECOPY_INFO, argument);
      return new PrecopyInfo(
          argument.get(JAVA_LONG, offset(VFIO_PRECOPY_INFO_LAYOUT, "initial_bytes")),
          argument.get(JAVA_LONG, offset(VFIO_PRECOPY_INFO_LAYOUT, "dirty_bytes")));
    }
  }

  @Override
  public void close() {
    fd.close();
  }
}
