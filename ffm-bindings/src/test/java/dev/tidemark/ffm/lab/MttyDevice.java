package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.vfio.VfioDevice;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.UUID;
import java.util.stream.Stream;

/**
 * A serial card of {@code samples/vfio-mdev/mtty.c}, made for a test and gone with it. A port is a
 * region of eight registers.
 */
public final class MttyDevice implements AutoCloseable {
  /** Bytes written here wait in the port's FIFO, and are read from here: 16 at most. */
  public static final int DATA = 0;

  /** Keeps what is written. */
  public static final int SCRATCH = 7;

  private static final Path TYPES = Path.of("/sys/devices/virtual/mtty/mtty/mdev_supported_types");
  private static final int REGION_SHIFT = 40;
  private static final MethodHandle PREAD = bind("pread");
  private static final MethodHandle PWRITE = bind("pwrite");

  private final Path mdev;
  private final VfioDevice device;

  /**
   * @param ports 1 or 2
   */
  public MttyDevice(int ports, Iommufd iommufd) throws IOException {
    String uuid = UUID.randomUUID().toString();
    Files.writeString(TYPES.resolve("mtty-" + ports).resolve("create"), uuid);
    mdev = Path.of("/sys/bus/mdev/devices").resolve(uuid);
    Path name;
    try (Stream<Path> files = Files.list(mdev.resolve("vfio-dev"))) {
      name = files.findFirst().orElseThrow().getFileName();
    }
    device = VfioDevice.open("/dev/vfio/devices/" + name);
    device.bindIommufd(iommufd);
  }

  @SuppressWarnings("restricted")
  private static MethodHandle bind(String name) {
    Linker linker = Linker.nativeLinker();
    return linker.downcallHandle(
        linker.defaultLookup().findOrThrow(name),
        FunctionDescriptor.of(JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG));
  }

  /** The device as any other; closed with this. */
  public VfioDevice vfio() {
    return device;
  }

  /** Writes a port's register. */
  public void write(int port, int register, int value) {
    transfer(PWRITE, port, register, value);
  }

  /** Reads a port's register. */
  public int read(int port, int register) {
    return transfer(PREAD, port, register, 0);
  }

  private int transfer(MethodHandle call, int port, int register, int value) {
    Fd fd = device.fd();
    int number = fd.acquire();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment data = arena.allocateFrom(JAVA_BYTE, (byte) value);
      long done =
          (long) call.invokeExact(number, data, 1L, ((long) port << REGION_SHIFT) + register);
      if (done != 1) {
        throw new IllegalStateException("register %d of port %d".formatted(register, port));
      }
      return Byte.toUnsignedInt(data.get(JAVA_BYTE, 0));
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable t) {
      throw new AssertionError(t);
    } finally {
      fd.release();
    }
  }

  @Override
  public void close() throws IOException {
    device.close();
    Files.writeString(mdev.resolve("remove"), "1");
  }
}
