package dev.tidemark.ffm.userfaultfd;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.ffm.Ioctl.Request;
import java.lang.foreign.StructLayout;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** Numbers that the kernel's headers give, the same on x86-64 and arm64. */
class UapiNumbersTest {
  private static final String PINNED =
      """
      PAGEMAP_SCAN 0xc0606610
      UFFDIO_API 0xc018aa3f
      UFFDIO_REGISTER 0xc020aa00
      UFFDIO_UNREGISTER 0x8010aa01
      UFFDIO_WRITEPROTECT 0xc018aa06
      USERFAULTFD_IOC_NEW 0xaa00
      page_region 0x18
      pm_scan_arg 0x60
      uffdio_api 0x18
      uffdio_range 0x10
      uffdio_register 0x20
      uffdio_writeprotect 0x18
      """;

  @Test
  void requestsAndSizesOfStructuresAreTheKernels() throws IllegalAccessException {
    Map<String, String> numbers = new TreeMap<>();
    for (Class<?> type : new Class<?>[] {UserfaultfdUapi.class, PagemapUapi.class}) {
      for (var field : type.getFields()) {
        switch (field.get(null)) {
          case Request request ->
              numbers.put(request.name(), "0x" + Integer.toHexString(request.code()));
          case StructLayout layout ->
              numbers.put(layout.name().orElseThrow(), "0x" + Long.toHexString(layout.byteSize()));
          default -> {}
        }
      }
    }
    assertEquals(
        PINNED.strip(),
        numbers.entrySet().stream()
            .map(e -> e.getKey() + " " + e.getValue())
            .collect(Collectors.joining("\n")));
  }
}
