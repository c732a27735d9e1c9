#include "daemon/handlers/service.h"

#include <string.h>

#define FORM_COUNT (sizeof(((struct service *)NULL)->packed) / sizeof(((struct service *)NULL)->packed[0]))

void service_init(struct service *service, struct store *store, struct session_list *sessions, struct monitor *monitor)
{
    memset(service, 0, sizeof(*service));
    service->store = store;
    service->sessions = sessions;
    service->monitor = monitor;
    for (size_t form = 0; form < FORM_COUNT; form++)
        msgpack_sbuffer_init(&service->packed[form].bytes);
}

void service_free(struct service *service)
{
    for (size_t form = 0; form < FORM_COUNT; form++)
        msgpack_sbuffer_destroy(&service->packed[form].bytes);
}
